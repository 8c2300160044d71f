/* The screen: for every token the m latents with about the largest importance (x . w + bias).
 *
 * int8 products of a strip (32 tokens x 256 latents) stay in the cache and go straight through the tokens'
 * thresholds (candidates.h); the [B, F] scores never exist. A job is a group of tokens and a range of
 * latents: large batches are split over tokens, small ones over latents too, whose candidates are merged.
 *
 * Legend: x [B, D], packed/scales/sums from screen_prepare, bias and importance [F], out [B, m].
 */
#include "lanes_avx512.h"

#include "candidates.h"
#include "screen.h"

/* A screen of so many multiply-adds takes one thread as long as another needs to wake. */
#define SMALL_SCREEN (1 << 23)

void quantize_tokens(const float *x, uint8_t *x_q, float *scales, i64 B, i64 D, i64 K, int flip, int threads);

typedef struct {
    const int8_t *packed;
    const float *w_scales, *bias, *importance;
    const int32_t *sums;
    uint8_t *x_q;
    float *x_scales;
    int32_t *out;
    i64 B, D, K, F, m;
    int tiles;         /* AMX, else VNNI */
    i64 group, groups; /* tokens of a group */
    i64 range, ranges; /* latents of a range, a multiple of STRIP */
    i64 room;          /* of a token's candidates */
} Screen;

/* Scale and bias of a strip's latents with the importance in them; latents beyond F score -inf. */
typedef struct { __attribute__((aligned(64))) float scales[STRIP], bias[STRIP]; int blocks; } Latents;

static void open_strip(const Screen *s, i64 first, Latents *strip) {
    i64 n = MIN(STRIP, s->F - first);
    strip->blocks = (int)(divide_up(n, LATENTS_PAD) * (LATENTS_PAD / 16));
    for (i64 j = 0; j < 16 * strip->blocks; j += 16) {
        lanes some = first_lanes(n - j);
        vf scales = vf_load_some(s->w_scales + first + j, some), bias = vf_load_some(s->bias + first + j, some);
        if (s->importance) {
            vf importance = vf_load_some(s->importance + first + j, some);
            scales = vf_mul(scales, importance), bias = vf_mul(bias, importance);
        }
        vf_store(strip->scales + j, scales);
        vf_store(strip->bias + j, _mm512_mask_mov_ps(vf_all(-__builtin_inff()), some, bias));
    }
}

INLINE vf score(const int32_t *products, const Latents *strip, int at, vf x_scale) {
    vf scale = vf_mul(vf_load(strip->scales + at), x_scale);
    return vf_fma(vf_from_int(vi_load(products + at)), scale, vf_load(strip->bias + at));
}

/* Append those of 64 scores that are above the threshold; mostly one or two are. */
static __attribute__((noinline)) void offer_hits(Candidates *c, vf s0, vf s1, vf s2, vf s3, vf limit,
                                                 i64 first) {
    const vf scores[4] = {s0, s1, s2, s3};
    uint64_t hits = 0;
    __attribute__((aligned(64))) float each[64];
    UNROLL for (int j = 0; j < 4; j++) {
        hits |= (uint64_t)vf_gt(scores[j], limit) << 16 * j;
        vf_store(each + 16 * j, scores[j]);
    }
    if (__builtin_popcountll(hits) > 8) {
        for (int j = 0; j < 4; j++)
            append(c, scores[j], vi_count_from((int)first + 16 * j), (unsigned)(hits >> 16 * j) & 0xffff);
        return;
    }
    i64 count = c->count;
    for (; hits; hits &= hits - 1, count++) {
        int j = __builtin_ctzll(hits);
        c->keys[count] = key_of(each[j]);
        c->latents[count] = (int32_t)first + j;
    }
    c->count = count;
}

/* One token's products with the strip's latents, through its threshold. */
INLINE void offer_strip(Candidates *c, const int32_t *products, const Latents *strip, float x_scale,
                        i64 first) {
    make_room(c, STRIP);
    vf limit = vf_all(c->threshold), factor = vf_all(x_scale);
    for (int at = 0; at < 16 * strip->blocks; at += 64) {
        vf s[4];
        UNROLL for (int j = 0; j < 4; j++) s[j] = score(products, strip, at + 16 * j, factor);
        vf most = _mm512_max_ps(_mm512_max_ps(s[0], s[1]), _mm512_max_ps(s[2], s[3]));
        if (__builtin_expect(vf_gt(most, limit) != 0, 0))
            offer_hits(c, s[0], s[1], s[2], s[3], limit, first + at);
    }
}

/* Distinct latents that are no candidates yet, where scores of -inf left fewer than m. */
static void fill_missing(Candidates *c, i64 F) {
    uint8_t *taken = calloc((size_t)F, 1);
    for (i64 i = 0; taken && i < c->count; i++) taken[c->latents[i]] = 1;
    for (i64 j = 0; j < F && c->count < c->k; j++)
        if (!taken || !taken[j]) c->latents[c->count++] = (int32_t)j;
    free(taken);
}

static void finish(const Screen *s, Candidates *c, i64 b) {
    if (c->count > s->m) prune(c, s->m);
    if (c->count < s->m) fill_missing(c, s->F);
    memcpy(s->out + b * s->m, c->latents, (size_t)s->m * 4);
}

static void run_job(const Screen *s, i64 group, i64 range, Candidates *candidates) {
    __attribute__((aligned(64))) int32_t products[STRIP_TOKENS * STRIP];
    i64 start = group * s->group, stop = MIN(start + s->group, s->B);
    i64 last = MIN((range + 1) * s->range, s->F);
    Latents strip;
    if (s->tiles) amx_begin();
    for (i64 first = range * s->range; first < last; first += STRIP) {
        open_strip(s, first, &strip);
        for (i64 b = start; b < stop; b += STRIP_TOKENS) {
            int tokens = (int)MIN(STRIP_TOKENS, stop - b);
            StripJob job = {s->x_q + b * s->K, tokens, s->packed + first * s->K, s->sums + first, strip.blocks,
                            s->K, b == start};
            if (s->tiles) strip_amx(&job, products);
            else strip_vnni(&job, products);
            for (int t = 0; t < tokens; t++)
                offer_strip(&candidates[b - start + t], products + t * STRIP, &strip, s->x_scales[b + t],
                            first);
        }
    }
    if (s->tiles) amx_end();
}

/* Groups of at most 512 tokens whose candidates fit 8 MB; ranges of latents where groups are too few. */
static void plan(Screen *s, int threads) {
    i64 most = MAX(STRIP_TOKENS, MIN(512, (8 << 20) / candidate_bytes(s->room)));
    s->groups = divide_up(s->B, most);
    s->group = divide_up(divide_up(s->B, s->groups), STRIP_TOKENS) * STRIP_TOKENS;
    s->groups = divide_up(s->B, s->group);
    i64 strips = divide_up(s->F, STRIP), wanted = s->groups >= threads ? 1 : divide_up(threads, s->groups);
    s->range = divide_up(strips, MIN(wanted, strips)) * STRIP;
    s->ranges = divide_up(s->F, s->range);
    s->group = MIN(s->group, s->B);
}

static void merge(const Screen *s, Candidates *all, i64 b, char *memory, i64 room) {
    Candidates merged = candidates_in(memory, s->m, room);
    for (i64 range = 0; range < s->ranges; range++) {
        Candidates *c = &all[(b / s->group * s->ranges + range) * s->group + b % s->group];
        if (c->count > s->m) prune(c, s->m);
        memcpy(merged.keys + merged.count, c->keys, (size_t)c->count * 4);
        memcpy(merged.latents + merged.count, c->latents, (size_t)c->count * 4);
        merged.count += c->count;
    }
    finish(s, &merged, b);
}

static void run_jobs(const Screen *s, Candidates *all, char *memory, int threads) {
    i64 jobs = s->groups * s->ranges, bytes = candidate_bytes(s->room);
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (i64 job = 0; job < jobs; job++) {
        i64 slot = (s->ranges > 1 ? job : omp_get_thread_num()) * s->group;
        i64 group = job / s->ranges, start = group * s->group, tokens = MIN(s->group, s->B - start);
        for (i64 t = 0; t < tokens; t++)
            all[slot + t] = candidates_in(memory + (slot + t) * bytes, s->m, s->room);
        run_job(s, group, job % s->ranges, all + slot);
        for (i64 t = 0; t < tokens && s->ranges == 1; t++) finish(s, &all[slot + t], start + t);
    }
}

static void merge_all(const Screen *s, Candidates *all, char *memory, i64 room, int threads) {
    if (s->B * s->m < 4096) threads = 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (i64 b = 0; b < s->B; b++)
        merge(s, all, b, memory + omp_get_thread_num() * candidate_bytes(room), room);
}

/* level: 3 VNNI, 4 AMX. Returns 1 where memory is short. */
API int screen(const int8_t *packed, const float *w_scales, const int32_t *sums, const float *x,
               const float *bias, const float *importance, int32_t *out, i64 B, i64 D, i64 F, i64 m, int level,
               int threads) {
    Screen s = {.packed = packed, .w_scales = w_scales, .bias = bias, .importance = importance, .sums = sums};
    s.out = out, s.B = B, s.D = D, s.F = F, s.m = m, s.K = divide_up(D, 64) * 64;
    s.tiles = level >= 4 && B > 4; /* for a few tokens memory is the limit, and tiles start slower */
    s.room = candidate_room(m, STRIP);
    if (B * F * D < SMALL_SCREEN) threads = 1;
    plan(&s, threads);
    i64 slots = (s.ranges > 1 ? s.groups * s.ranges : threads) * s.group;
    i64 merged_room = s.ranges > 1 ? divide_up(s.ranges * m, 16) * 16 + 32 : 0;
    s.x_q = aligned((B + STRIP_TOKENS) * s.K);
    s.x_scales = aligned(4 * B);
    Candidates *all = aligned(slots * (i64)sizeof(Candidates));
    char *memory = aligned(slots * candidate_bytes(s.room) + threads * candidate_bytes(merged_room));
    int short_of_memory = !s.x_q || !s.x_scales || !all || !memory;
    if (!short_of_memory) {
        quantize_tokens(x, s.x_q, s.x_scales, B, D, s.K, s.tiles ? 0 : 128, threads);
        run_jobs(&s, all, memory, threads);
        if (s.ranges > 1) merge_all(&s, all, memory + slots * candidate_bytes(s.room), merged_room, threads);
    }
    free(s.x_q), free(s.x_scales), free(all), free(memory);
    return short_of_memory;
}
