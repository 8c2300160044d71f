/* Sixteen lanes of float32 or int32 on AVX2 with FMA, as two halves.
 *
 * lanes_avx512.h has the same words with the same order of additions, so that both give the same bits.
 */
#pragma once

#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
#include <immintrin.h>

#include "common.h"

#define ISA avx2
#define WIDE 4 /* accumulators of 16 lanes that a block of columns may take */
#define LOOKUPS_PER_SHIFT(bits) 1 /* three index bits are too few for two */

typedef struct { __m256 low, high; } vf;
typedef struct { __m256i low, high; } vi;
typedef vi lanes;                         /* which lanes are read or written: all bits set */
typedef struct { __m256 low, high; } vtable;
typedef struct { __m256d a, b, c, d; } vd;

INLINE vi vi_all(int x) { __m256i a = _mm256_set1_epi32(x); return (vi){a, a}; }
INLINE vi vi_count_from(int start) {
    __m256i low = _mm256_add_epi32(_mm256_set1_epi32(start), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
    return (vi){low, _mm256_add_epi32(low, _mm256_set1_epi32(8))};
}
INLINE lanes first_lanes(i64 n) {
    __m256i limit = _mm256_set1_epi32((int)MAX(0, MIN(n, 16)));
    vi at = vi_count_from(0);
    return (vi){_mm256_cmpgt_epi32(limit, at.low), _mm256_cmpgt_epi32(limit, at.high)};
}

#define ONE(name, of) INLINE vf name(vf a) { return (vf){of(a.low), of(a.high)}; }
#define TWO(name, of) INLINE vf name(vf a, vf b) { return (vf){of(a.low, b.low), of(a.high, b.high)}; }
#define THREE(name, of) \
    INLINE vf name(vf a, vf b, vf c) { return (vf){of(a.low, b.low, c.low), of(a.high, b.high, c.high)}; }
#define INTS(name, of) INLINE vi name(vi a, vi b) { return (vi){of(a.low, b.low), of(a.high, b.high)}; }
ONE(vf_sqrt, _mm256_sqrt_ps)
TWO(vf_add, _mm256_add_ps)
TWO(vf_sub, _mm256_sub_ps)
TWO(vf_mul, _mm256_mul_ps)
TWO(vf_div, _mm256_div_ps)
THREE(vf_fma, _mm256_fmadd_ps)
THREE(vf_fnma, _mm256_fnmadd_ps)
INTS(vi_max, _mm256_max_epi32)
INTS(vi_min, _mm256_min_epi32)

INLINE vf vf_zero(void) { return (vf){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
INLINE vf vf_all(float x) { __m256 a = _mm256_set1_ps(x); return (vf){a, a}; }
INLINE vf vf_load(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE vf vf_load_some(const float *p, lanes m) {
    return (vf){_mm256_maskload_ps(p, m.low), _mm256_maskload_ps(p + 8, m.high)};
}
INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a.low); _mm256_storeu_ps(p + 8, a.high); }
INLINE void vf_store_some(float *p, vf a, lanes m) {
    _mm256_maskstore_ps(p, m.low, a.low);
    _mm256_maskstore_ps(p + 8, m.high, a.high);
}
INLINE unsigned mask_of(__m256 low, __m256 high) {
    return (unsigned)_mm256_movemask_ps(low) | (unsigned)_mm256_movemask_ps(high) << 8;
}
#define COMPARE(a, b, how) mask_of(_mm256_cmp_ps(a.low, b.low, how), _mm256_cmp_ps(a.high, b.high, how))
INLINE unsigned vf_gt(vf a, vf b) { return COMPARE(a, b, _CMP_GT_OQ); }
/* Not (a <= b): greater, or not a number. */
INLINE unsigned vf_not_le(vf a, vf b) { return COMPARE(a, b, _CMP_NLE_UQ); }
/* a where a > limit, else 0 */
INLINE vf vf_above(vf a, vf limit) {
    return (vf){_mm256_and_ps(a.low, _mm256_cmp_ps(a.low, limit.low, _CMP_GT_OQ)),
                _mm256_and_ps(a.high, _mm256_cmp_ps(a.high, limit.high, _CMP_GT_OQ))};
}
INLINE float sum_eight(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
INLINE float vf_sum(vf a) { return sum_eight(_mm256_add_ps(a.low, a.high)); }

#define LOWER(x) _mm256_cvtps_pd(_mm256_castps256_ps128(x))
#define UPPER(x) _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))
INLINE vd vd_zero(void) { __m256d z = _mm256_setzero_pd(); return (vd){z, z, z, z}; }
INLINE void vd_add(vd *sum, vf x) {
    sum->a = _mm256_add_pd(sum->a, LOWER(x.low)), sum->b = _mm256_add_pd(sum->b, UPPER(x.low));
    sum->c = _mm256_add_pd(sum->c, LOWER(x.high)), sum->d = _mm256_add_pd(sum->d, UPPER(x.high));
}
INLINE void vd_add_squares(vd *sum, vf x) {
    __m256d a = LOWER(x.low), b = UPPER(x.low), c = LOWER(x.high), d = UPPER(x.high);
    sum->a = _mm256_fmadd_pd(a, a, sum->a), sum->b = _mm256_fmadd_pd(b, b, sum->b);
    sum->c = _mm256_fmadd_pd(c, c, sum->c), sum->d = _mm256_fmadd_pd(d, d, sum->d);
}
INLINE double vd_sum(vd s) {
    __m256d four = _mm256_add_pd(_mm256_add_pd(s.a, s.c), _mm256_add_pd(s.b, s.d));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

INLINE vi vi_load(const void *p) {
    return (vi){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)p + 1)};
}
INLINE void vi_store(void *p, vi a) {
    _mm256_storeu_si256((__m256i *)p, a.low);
    _mm256_storeu_si256((__m256i *)p + 1, a.high);
}
#define AS_FLOATS(x) _mm256_castsi256_ps(x)
INLINE unsigned vi_gt(vi a, vi b) {
    return mask_of(AS_FLOATS(_mm256_cmpgt_epi32(a.low, b.low)), AS_FLOATS(_mm256_cmpgt_epi32(a.high, b.high)));
}
INLINE unsigned vi_eq(vi a, vi b) {
    return mask_of(AS_FLOATS(_mm256_cmpeq_epi32(a.low, b.low)), AS_FLOATS(_mm256_cmpeq_epi32(a.high, b.high)));
}
INLINE __m256i ordered_eight(__m256i a) {
    return _mm256_xor_si256(a, _mm256_and_si256(_mm256_srai_epi32(a, 31), _mm256_set1_epi32(0x7fffffff)));
}
/* Integers in the order of the floats, whose bits those are; its own inverse. */
INLINE vi vi_ordered(vi a) { return (vi){ordered_eight(a.low), ordered_eight(a.high)}; }
INLINE vi vi_bits(vf a) { return (vi){_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)}; }
INLINE int vi_highest(vi a) {
    int32_t x[16], most = INT32_MIN;
    vi_store(x, a);
    for (int i = 0; i < 16; i++) most = MAX(most, x[i]);
    return most;
}
INLINE int vi_lowest(vi a) {
    int32_t x[16], least = INT32_MAX;
    vi_store(x, a);
    for (int i = 0; i < 16; i++) least = MIN(least, x[i]);
    return least;
}
INLINE __m256i compress_eight(__m256i a, unsigned m) {
    uint64_t bytes = _pdep_u64(m, 0x0101010101010101) * 0xff;
    uint64_t order = _pext_u64(0x0706050403020100, bytes);
    return _mm256_permutevar8x32_epi32(a, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order)));
}
/* Lanes of the mask, moved together; writes all 16 places. */
INLINE void vi_compress(int32_t *p, vi a, unsigned m) {
    int32_t *second = p + __builtin_popcount(m & 0xff);
    _mm256_storeu_si256((__m256i *)p, compress_eight(a.low, m & 0xff));
    _mm256_storeu_si256((__m256i *)second, compress_eight(a.high, m >> 8));
}

INLINE vtable vtable_of(const float *p) { return (vtable){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE vtable vtable_scale(vtable a, float scale) {
    __m256 s = _mm256_set1_ps(scale);
    return (vtable){_mm256_mul_ps(a.low, s), _mm256_mul_ps(a.high, s)};
}
INLINE vi vi_shift(vi a, int bits) {
    return (vi){_mm256_srli_epi32(a.low, bits), _mm256_srli_epi32(a.high, bits)};
}
INLINE vi vi_shift_by(vi a, int bits) {
    __m128i by = _mm_cvtsi32_si128(bits);
    return (vi){_mm256_srl_epi32(a.low, by), _mm256_srl_epi32(a.high, by)};
}
INLINE __m256 eight_at(vtable t, __m256i at, const int bits) {
    __m256 low = _mm256_permutevar8x32_ps(t.low, at);
    if (bits < 4) return low; /* the permutation reads three bits */
    __m256 high = _mm256_permutevar8x32_ps(t.high, at);
    return _mm256_blendv_ps(low, high, AS_FLOATS(_mm256_slli_epi32(at, 28)));
}
/* Entries of the table at the lowest four bits of each lane; the table repeats after 2^bits entries. */
INLINE vf vtable_at(vtable t, vi at, const int bits) {
    return (vf){eight_at(t, at.low, bits), eight_at(t, at.high, bits)};
}
INLINE vi vi_from_bytes(const uint8_t *p) {
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return (vi){_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}
INLINE vf vf_from_int(vi a) { return (vf){_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
INLINE vf vf_gather(const float *table, vi at) {
    return (vf){_mm256_i32gather_ps(table, at.low, 4), _mm256_i32gather_ps(table, at.high, 4)};
}
