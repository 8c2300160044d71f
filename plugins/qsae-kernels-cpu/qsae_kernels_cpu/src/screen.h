/* The parts of a screen: what candidates for the largest scores are found with.
 *
 * Legend: x_q [B, K] int8 rows of tokens, K = D padded to 64; packed [F / 64, 4 blocks, K / 64, 16 quads,
 * 16 latents, 4 bytes] int8 rows of the encoder, zero beyond F and D: one block is 16 latents, K * 16 bytes.
 * A strip is the int32 product of up to 32 tokens and STRIP latents, [tokens, STRIP].
 */
#pragma once

#include "common.h"

#define STRIP 256
#define STRIP_TOKENS 32
#define LATENTS_PAD 64

typedef struct {
    const uint8_t *x;      /* first token; rows of K bytes; STRIP_TOKENS rows can be read */
    int tokens;
    const int8_t *packed;  /* first block */
    const int32_t *sums;   /* of the bytes of each latent */
    int blocks;            /* a multiple of 4, at most STRIP / 16 */
    i64 K;
    int fresh;             /* the blocks are not in the cache yet: ask for the next ones early */
} StripJob;

/* x holds the bytes plus 128, unsigned. */
void strip_vnni(const StripJob *job, int32_t *out);

/* x holds signed bytes; between amx_begin and amx_end on the same thread. */
void amx_begin(void);
void amx_end(void);
void strip_amx(const StripJob *job, int32_t *out);
