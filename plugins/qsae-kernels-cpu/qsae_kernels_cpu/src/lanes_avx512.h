/* Sixteen lanes of float32 or int32 on AVX-512: the words that the kernels are written in.
 *
 * lanes_avx2.h has the same words with the same order of additions, so that both give the same bits.
 */
#pragma once

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,bmi2,popcnt")
#include <immintrin.h>

#include "common.h"

#define ISA avx512
#define WIDE 16 /* accumulators of 16 lanes that a block of columns may take */
#define LOOKUPS_PER_SHIFT(bits) (4 / (bits)) /* four index bits */

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 lanes;   /* which lanes are read or written */
typedef __m512 vtable;     /* sixteen floats, looked up by four bits */
typedef struct { __m512d low, high; } vd;

INLINE lanes first_lanes(i64 n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (lanes)((1u << n) - 1); }
INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
INLINE vf vf_all(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE vf vf_load_some(const float *p, lanes m) { return _mm512_maskz_loadu_ps(m, p); }
INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
INLINE void vf_store_some(float *p, vf a, lanes m) { _mm512_mask_storeu_ps(p, m, a); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
/* c - a b */
INLINE vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
/* a where a > limit, else 0 */
INLINE vf vf_above(vf a, vf limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, limit, _CMP_GT_OQ), a);
}
INLINE unsigned vf_gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
/* Not (a <= b): greater, or not a number. */
INLINE unsigned vf_not_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ); }

INLINE float sum_eight(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
INLINE float vf_sum(vf a) {
    return sum_eight(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}

INLINE vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
INLINE void vd_add(vd *sum, vf a) {
    sum->low = _mm512_add_pd(sum->low, _mm512_cvtps_pd(_mm512_castps512_ps256(a)));
    sum->high = _mm512_add_pd(sum->high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)));
}
INLINE void vd_add_squares(vd *sum, vf a) {
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
    __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
    sum->low = _mm512_fmadd_pd(low, low, sum->low);
    sum->high = _mm512_fmadd_pd(high, high, sum->high);
}
INLINE double vd_sum(vd a) {
    __m512d eight = _mm512_add_pd(a.low, a.high);
    __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

INLINE vi vi_all(int x) { return _mm512_set1_epi32(x); }
INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void vi_store(void *p, vi a) { _mm512_storeu_si512(p, a); }
INLINE unsigned vi_gt(vi a, vi b) { return _mm512_cmpgt_epi32_mask(a, b); }
INLINE unsigned vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a, b); }
INLINE vi vi_count_from(int start) {
    const __m512i steps = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_add_epi32(_mm512_set1_epi32(start), steps);
}
/* Integers in the order of the floats, whose bits those are; its own inverse. */
INLINE vi vi_ordered(vi a) {
    return _mm512_xor_si512(a, _mm512_and_si512(_mm512_srai_epi32(a, 31), _mm512_set1_epi32(0x7fffffff)));
}
INLINE vi vi_bits(vf a) { return _mm512_castps_si512(a); }
INLINE vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
INLINE vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
INLINE int vi_highest(vi a) { return _mm512_reduce_max_epi32(a); }
INLINE int vi_lowest(vi a) { return _mm512_reduce_min_epi32(a); }
/* Lanes of the mask, moved together; writes all 16 places. */
INLINE void vi_compress(int32_t *p, vi a, unsigned m) {
    vi_store(p, _mm512_maskz_compress_epi32((__mmask16)m, a)); /* compressing into memory is slow on Zen 4 */
}

INLINE vtable vtable_of(const float *sixteen) { return vf_load(sixteen); }
INLINE vtable vtable_scale(vtable a, float scale) { return vf_mul(a, vf_all(scale)); }
INLINE vi vi_shift(vi a, int bits) { return _mm512_srli_epi32(a, bits); }
INLINE vi vi_shift_by(vi a, int bits) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(bits)); }
/* Entries of the table at the lowest four bits of each lane; the table repeats after 2^bits entries. */
INLINE vf vtable_at(vtable t, vi at, const int bits) {
    (void)bits;
    return _mm512_permutexvar_ps(at, t);
}
INLINE vi vi_from_bytes(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
INLINE vf vf_from_int(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vf vf_gather(const float *table, vi at) { return _mm512_i32gather_ps(at, table, 4); }
