/* Codes by latent, and codes as dense rows and back.
 *
 * By latent: the entries of compressed rows [B, F], sorted by latent and within it by token.
 *
 * A counting sort: each thread counts a range of tokens, the counts are added up over latents and threads,
 * each thread puts its entries in their places. Threads hold ranges in order, so the sort is stable.
 */
#include "common.h"

/* counts[t][f] -> the place of thread t's first entry of latent f; starts[f] = first entry of f. */
static void places_of(i64 *counts, i64 *starts, i64 F, int T) {
    i64 place = 0;
    for (i64 f = 0; f < F; f++) {
        starts[f] = place;
        for (int t = 0; t < T; t++) {
            i64 count = counts[t * F + f];
            counts[t * F + f] = place;
            place += count;
        }
    }
    starts[F] = place;
}

API int transpose_codes(const int32_t *indices, const i64 *offsets, int32_t *tokens, i64 *order, i64 *starts,
                        i64 B, i64 F, int threads) {
    i64 N = offsets[B];
    int T = N < 16384 ? 1 : threads;
    i64 *counts = calloc((size_t)MAX(T * F, 1), sizeof(i64));
    if (!counts) return 1;
#pragma omp parallel for schedule(static, 1) num_threads(T) if (T > 1)
    for (int t = 0; t < T; t++)
        for (i64 e = N * t / T; e < N * (t + 1) / T; e++) counts[t * F + indices[e]]++;
    places_of(counts, starts, F, T);
#pragma omp parallel for schedule(static, 1) num_threads(T) if (T > 1)
    for (int t = 0; t < T; t++) {
        i64 first = N * t / T, stop = N * (t + 1) / T;
        i64 b = first < stop ? bag_of(offsets, B, first) : 0;
        for (i64 e = first; e < stop; e++) {
            while (offsets[b + 1] <= e) b++;
            i64 place = counts[t * F + indices[e]]++;
            tokens[place] = (int32_t)b;
            order[place] = e;
        }
    }
    free(counts);
    return 0;
}

/* dense [C, F] = the values at their places, zeros elsewhere. */
API void expand_rows(const int32_t *indices, const i64 *offsets, const float *values, float *dense, i64 C,
                     i64 F, int threads) {
    if (C * F < SMALL_WORK) threads = 1;
#pragma omp parallel for schedule(dynamic, 8) num_threads(threads) if (threads > 1)
    for (i64 row = 0; row < C; row++) {
        float *to = dense + row * F;
        memset(to, 0, (size_t)F * sizeof(float));
        for (i64 e = offsets[row]; e < offsets[row + 1]; e++) to[indices[e]] = values[e];
    }
}

/* values [N] = the entries of dense [C, F] at the places of the codes. */
API void collect_rows(const float *dense, const int32_t *indices, const i64 *offsets, float *values, i64 C,
                      i64 F, int threads) {
    if (C * F < SMALL_WORK) threads = 1;
#pragma omp parallel for schedule(dynamic, 8) num_threads(threads) if (threads > 1)
    for (i64 row = 0; row < C; row++) {
        const float *from = dense + row * F;
        for (i64 e = offsets[row]; e < offsets[row + 1]; e++) values[e] = from[indices[e]];
    }
}
