/* A strip by AMX: 32 tokens and 32 latents at a time, as 2 x 2 tiles of 16 x 16 int32.
 *
 * Tiles 0 to 3 hold sums, 4 and 5 tokens (16 rows of 64 bytes), 6 and 7 latents (16 quads of 16 latents).
 * Legend: see screen.h.
 */
#pragma GCC target("amx-tile,amx-int8,avx512f")
#include <immintrin.h>

#include "screen.h"

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileConfig;

/* All eight tiles: 16 rows of 64 bytes. Constant, since gcc 12 thinks that loading reads eight bytes of it. */
static const TileConfig all_full = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

void amx_begin(void) { _tile_loadconfig(&all_full); }

void amx_end(void) { _tile_release(); }

INLINE void prefetch_tile(const int8_t *tile) {
    UNROLL for (int i = 0; i < 16; i++) _mm_prefetch((const char *)tile + 64 * i, _MM_HINT_T1);
}

/* Two blocks of latents, packed from w on. */
INLINE void pair(const uint8_t *x, i64 K, const int8_t *w, int32_t *out, const int fresh) {
    const i64 stride = 16 * K;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (i64 k = 0; k < K; k += 64) {
        const int8_t *tile = w + 16 * k;
        _tile_loadd(4, x + k, K);
        _tile_loadd(6, tile, 64);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, tile + stride, 64);
        _tile_dpbssd(1, 4, 7);
        _tile_loadd(5, x + 16 * K + k, K);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
        if (fresh) {
            prefetch_tile(tile + 2 * stride);
            prefetch_tile(tile + 3 * stride);
        }
    }
    _tile_stored(0, out, 4 * STRIP);
    _tile_stored(1, out + 16, 4 * STRIP);
    _tile_stored(2, out + 16 * STRIP, 4 * STRIP);
    _tile_stored(3, out + 16 * STRIP + 16, 4 * STRIP);
}

void strip_amx(const StripJob *job, int32_t *out) {
    for (int block = 0; block < job->blocks; block += 2) {
        const int8_t *w = job->packed + block * 16 * job->K;
        if (job->fresh) pair(job->x, job->K, w, out + 16 * block, 1);
        else pair(job->x, job->K, w, out + 16 * block, 0);
    }
}
