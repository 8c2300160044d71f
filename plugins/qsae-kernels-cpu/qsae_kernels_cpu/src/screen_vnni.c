/* A strip by VNNI: sums of (x + 128) w minus 128 times the sum of w, which is the sum of x w.
 *
 * Six tokens and four blocks (64 latents) at a time stay in registers. Legend: see screen.h.
 */
#include "lanes_avx512.h"

#include "screen.h"

#pragma GCC push_options
#pragma GCC target("avx512vnni")

INLINE void micro(const StripJob *job, int token, int block, const int tokens, const int fresh, int32_t *out) {
    const i64 K = job->K, stride = 16 * K;
    const int8_t *w = job->packed + block * stride;
    const uint8_t *x = job->x + token * K;
    vi sums[6][4];
    UNROLL for (int j = 0; j < 4; j++) {
        vi start = _mm512_slli_epi32(vi_load(job->sums + 16 * (block + j)), 7);
        UNROLL for (int t = 0; t < tokens; t++) sums[t][j] = _mm512_sub_epi32(vi_all(0), start);
    }
    for (i64 q = 0; q < K / 4; q++) {
        vi four[4];
        UNROLL for (int j = 0; j < 4; j++) {
            four[j] = vi_load(w + j * stride + 64 * q);
            if (fresh) _mm_prefetch(w + (4 + j) * stride + 64 * q, _MM_HINT_T0);
        }
        UNROLL for (int t = 0; t < tokens; t++) {
            int32_t bytes;
            memcpy(&bytes, x + t * K + 4 * q, 4);
            vi quad = vi_all(bytes);
            UNROLL for (int j = 0; j < 4; j++) sums[t][j] = _mm512_dpbusd_epi32(sums[t][j], quad, four[j]);
        }
    }
    UNROLL for (int t = 0; t < tokens; t++)
        UNROLL for (int j = 0; j < 4; j++)
            vi_store(out + (token + t) * STRIP + 16 * (block + j), sums[t][j]);
}

void strip_vnni(const StripJob *job, int32_t *out) {
    for (int block = 0; block < job->blocks; block += 4) {
        int token = 0;
        if (job->fresh) {
            if (job->tokens >= 6) micro(job, 0, block, 6, 1, out), token = 6;
            else if (job->tokens == 1) micro(job, 0, block, 1, 1, out), token = 1;
            else micro(job, 0, block, 2, 1, out), token = 2;
        }
        for (; token + 6 <= job->tokens; token += 6) micro(job, token, block, 6, 0, out);
        for (; token + 2 <= job->tokens; token += 2) micro(job, token, block, 2, 0, out);
        if (token < job->tokens) micro(job, token, block, 1, 0, out);
    }
}

#pragma GCC pop_options
