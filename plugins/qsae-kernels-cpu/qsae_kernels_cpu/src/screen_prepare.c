/* The encoder as int8: W_q = round(W / scale) per row, scale = max |W| / 127, packed for tiles (screen.h).
 *
 * Legend: W [F, D] -> packed (see screen.h), scales [F padded], sums [F padded] of the int8 values.
 */
#include "lanes_avx512.h"

#include "screen.h"

#pragma GCC push_options
#pragma GCC target("avx512vnni")

/* The largest magnitude of a row; rows with a NaN or an infinity give 0, so that they never screen as NaN. */
INLINE float largest(const float *row, i64 D) {
    vi most = vi_all(0);
    for (i64 i = 0; i < D; i += 16) {
        vi bits = vi_bits(vf_load_some(row + i, first_lanes(D - i)));
        most = vi_max(most, _mm512_and_si512(bits, vi_all(0x7fffffff)));
    }
    int32_t bits = vi_highest(most);
    float found;
    memcpy(&found, &bits, 4);
    return found < __builtin_inff() ? found : 0;
}

/* Sixteen floats times `inverse`, as bytes. */
INLINE __m128i bytes_of(const float *p, vf inverse, i64 n) {
    return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(vf_mul(vf_load_some(p, first_lanes(n)), inverse)));
}

INLINE float inverse_of(float most) { return most > 1e-30f ? 127 / most : 0; }

/* One block: 16 latents from row f on, `rows` of which exist. */
static void pack_block(const float *W, i64 rows, i64 D, i64 K, int8_t *out, float *scales, int32_t *sums) {
    vf inverses[16];
    for (int j = 0; j < 16; j++) {
        float most = j < rows ? largest(W + j * D, D) : 0, inverse = inverse_of(most);
        scales[j] = inverse > 0 ? most / 127 : 0;
        inverses[j] = vf_all(inverse);
    }
    __attribute__((aligned(64))) int8_t bytes[16 * 64] = {0};
    const vi rows_at = _mm512_mullo_epi32(vi_count_from(0), vi_all(16)), ones = _mm512_set1_epi8(1);
    vi sum = vi_all(0);
    for (i64 k = 0; k < K; k += 64) {
        for (int j = 0; j < MIN(rows, 16); j++) {
            const float *row = W + j * D + k;
            UNROLL for (int i = 0; i < 64; i += 16)
                _mm_store_si128((__m128i *)(bytes + 64 * j + i), bytes_of(row + i, inverses[j], D - k - i));
        }
        UNROLL for (int q = 0; q < 16; q++) {
            vi quad = _mm512_i32gather_epi32(_mm512_add_epi32(rows_at, vi_all(q)), bytes, 4);
            sum = _mm512_dpbusd_epi32(sum, ones, quad);
            vi_store(out + 16 * k + 64 * q, quad);
        }
    }
    vi_store(sums, sum);
}

API void screen_prepare(const float *W, int8_t *packed, float *scales, int32_t *sums, i64 F, i64 D,
                        int threads) {
    i64 K = divide_up(D, 64) * 64, blocks = divide_up(F, LATENTS_PAD) * (LATENTS_PAD / 16);
    if (F * D < SMALL_WORK) threads = 1;
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads) if (threads > 1)
    for (i64 block = 0; block < blocks; block++) {
        i64 f = 16 * block;
        pack_block(W + f * D, F - f, D, K, packed + f * K, scales + f, sums + f);
    }
}

/* Tokens as int8 rows of K bytes, each xor `flip` (128 turns them into unsigned bytes plus 128). */
void quantize_tokens(const float *x, uint8_t *x_q, float *scales, i64 B, i64 D, i64 K, int flip, int threads) {
    if (B * D < SMALL_WORK) threads = 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (i64 b = 0; b < B; b++) {
        const float *row = x + b * D;
        float most = largest(row, D), inverse = inverse_of(most);
        scales[b] = inverse > 0 ? most / 127 : 0;
        for (i64 i = 0; i < K; i += 16) {
            __m128i bytes = inverse > 0 ? bytes_of(row + i, vf_all(inverse), D - i) : _mm_setzero_si128();
            _mm_store_si128((__m128i *)(x_q + b * K + i), _mm_xor_si128(bytes, _mm_set1_epi8((char)flip)));
        }
    }
}

#pragma GCC pop_options
