/* The largest entries of a stream of scores, written in lanes: a buffer, a threshold, and a prune.
 *
 * Scores above the threshold are appended; when the buffer could overflow it is pruned to about the k
 * largest, and the threshold rises to the smallest of those. Scores are kept as integers in the order of
 * floats ("keys"), so that whatever the scores are, comparisons are total and loops end.
 */

typedef struct {
    int32_t *keys, *latents; /* `room` places each, plus one vector beyond */
    i64 count, k, room;
    float threshold; /* k kept scores are at least this */
} Candidates;

INLINE int32_t key_of(float score) {
    int32_t bits;
    memcpy(&bits, &score, 4);
    return bits ^ ((bits >> 31) & 0x7fffffff);
}
INLINE float score_of(int32_t key) {
    int32_t bits = key ^ ((key >> 31) & 0x7fffffff);
    float score;
    memcpy(&score, &bits, 4);
    return score;
}

/* Room for k and for `strip` more between two prunes, and for as many again as make prunes rare. */
INLINE i64 candidate_room(i64 k, i64 strip) { return divide_up(k + MAX(k, 128) + strip, 16) * 16 + 16; }
INLINE i64 candidate_bytes(i64 room) { return 2 * 4 * room; }

INLINE Candidates candidates_in(void *memory, i64 k, i64 room) {
    int32_t *keys = memory;
    return (Candidates){keys, keys + room, 0, k, room - 16, -__builtin_inff()};
}

INLINE i64 count_at_least(const int32_t *keys, i64 count, int32_t limit) {
    vi below = vi_all(limit - 1); /* limit > INT32_MIN */
    i64 found = 0, i = 0;
    for (; i + 16 <= count; i += 16) found += __builtin_popcount(vi_gt(vi_load(keys + i), below));
    unsigned rest = (1u << (count - i)) - 1;
    return found + (rest ? __builtin_popcount(vi_gt(vi_load(keys + i), below) & rest) : 0);
}

/* A key that between k and `most` keys reach; if ties forbid that, the k-th largest key. */
static int32_t prune_limit(const int32_t *keys, i64 count, i64 k, i64 most) {
    vi top = vi_all(INT32_MIN), bottom = vi_all(INT32_MAX);
    i64 i = 0;
    for (; i + 16 <= count; i += 16)
        top = vi_max(top, vi_load(keys + i)), bottom = vi_min(bottom, vi_load(keys + i));
    i64 low = vi_lowest(bottom), high = vi_highest(top);
    for (; i < count; i++) low = MIN(low, keys[i]), high = MAX(high, keys[i]);
    while (low < high) { /* low: at least k keys reach it; high + 1: fewer do */
        i64 middle = low + (high - low + 1) / 2, found = count_at_least(keys, count, (int32_t)middle);
        if (found < k) high = middle - 1;
        else {
            low = middle;
            if (found <= most) break;
        }
    }
    return (int32_t)low;
}

/* Keep between k and `most` of the largest (more ties than that are cut); count > k. */
static void prune(Candidates *c, i64 most) {
    int32_t limit = prune_limit(c->keys, c->count, c->k, most);
    i64 above = 0, kept = 0, i;
    for (i = 0; i < c->count; i++) above += c->keys[i] > limit;
    i64 ties = MAX(most, above) - above; /* above < k <= most where the limit is exact, else nothing is cut */
    vi at = vi_all(limit);
    for (i = 0; i < c->count; i += 16) {
        unsigned valid = c->count - i >= 16 ? 0xffff : (1u << (c->count - i)) - 1;
        vi keys = vi_load(c->keys + i), latents = vi_load(c->latents + i);
        unsigned equal = vi_eq(keys, at) & valid;
        while (__builtin_popcount(equal) > ties) equal &= equal - 1;
        ties -= __builtin_popcount(equal);
        unsigned keep = (vi_gt(keys, at) & valid) | equal;
        vi_compress(c->keys + kept, keys, keep);
        vi_compress(c->latents + kept, latents, keep);
        kept += __builtin_popcount(keep);
    }
    c->count = kept;
    c->threshold = score_of(limit);
}

/* Before `strip` scores are offered: room for all of them. */
INLINE void make_room(Candidates *c, i64 strip) {
    if (c->count + strip > c->room) prune(c, c->k + (c->room - strip - c->k) / 4);
}

/* Append the lanes of the mask. */
INLINE void append(Candidates *c, vf scores, vi latents, unsigned mask) {
    vi_compress(c->keys + c->count, vi_ordered(vi_bits(scores)), mask);
    vi_compress(c->latents + c->count, latents, mask);
    c->count += __builtin_popcount(mask);
}
