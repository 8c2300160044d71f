/* What every source shares: exported names, sizes, prefetching.
 *
 * Legend: B tokens, C rows of scores, F latents, D width of a row, N entries, T threads.
 * Codes are compressed rows: int32 indices[N], int64 offsets[B + 1].
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define GLUE_(a, b) a##_##b
#define GLUE(a, b) GLUE_(a, b)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define UNROLL _Pragma("GCC unroll 16")

/* Work below this many multiply-adds runs on one thread: waking the others costs more. */
#define SMALL_WORK 65536
/* The same for products of codes with rows that are in the cache, and for rotations (32 tokens' 64 rows of
 * 1024): threads that sleep take 100 microseconds to wake. */
#define SMALL_PRODUCT (1 << 21)

typedef int64_t i64;

int omp_get_thread_num(void);
int omp_get_num_threads(void);

INLINE i64 divide_up(i64 a, i64 b) { return (a + b - 1) / b; }

/* Memory for vectors: 64-byte aligned, at least one line. */
INLINE void *aligned(i64 bytes) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, (size_t)(bytes > 64 ? bytes : 64)) ? NULL : memory;
}

/* The bag that holds entry e: the last b with offsets[b] <= e, in [0, B). */
INLINE i64 bag_of(const i64 *offsets, i64 B, i64 e) {
    i64 low = 0, high = B;
    while (high - low > 1) {
        i64 middle = (low + high) / 2;
        if (offsets[middle] <= e) low = middle;
        else high = middle;
    }
    return low;
}

/* The first bag b with offsets[b] + b >= place: equal steps of place are equal work, empty bags included. */
INLINE i64 bag_at(const i64 *offsets, i64 B, i64 place) {
    i64 low = 0, high = B;
    while (low < high) {
        i64 middle = (low + high) / 2;
        if (offsets[middle] + middle < place) low = middle + 1;
        else high = middle;
    }
    return low;
}
