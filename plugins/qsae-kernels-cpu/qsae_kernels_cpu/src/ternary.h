/* Scales of the best ternary grid, written in lanes; included once per instruction set.
 *
 * For magnitudes a_1 >= a_2 >= ... of a row, scale = mean of the first n, n the number that maximises
 * (a_1 + ... + a_n)^2 / n; ties go to the smaller n. The squared error of scale * {-1, 0, 1} is then least.
 *
 * The best n has exactly the magnitudes above half of their mean. Let next(t) = half of the mean of the
 * magnitudes above t: it grows with t, so iterating from 0 gives the least and from max / 2 the greatest
 * fixed point, and the best n lies between. Mostly they are the same; if not, what lies between is sorted.
 *
 * Legend: magnitudes [R, C], all >= 0; scales [R].
 */

typedef struct { double sum, limit; i64 n; } Above;

/* The largest float <= limit, so that floats compare with it as doubles with the limit. */
INLINE float float_below(double limit) {
    float bound = (float)limit;
    if (bound <= limit) return bound;
    int32_t bits;
    memcpy(&bits, &bound, 4);
    bits--;
    memcpy(&bound, &bits, 4);
    return bound;
}

/* Sum and number of the magnitudes above the limit; the sum in double, or first in float over eight vectors,
 * which is off by less than 1 / (4 C) of it, the distance that magnitudes keep from the best limit. */
INLINE Above above(const float *row, i64 C, double limit, const int roughly) {
    vf bound = vf_all(float_below(limit));
    vd sum = vd_zero();
    i64 n = 0, i = 0;
    for (; roughly && i + 128 <= C; i += 128) {
        vf part = vf_zero();
        UNROLL for (int s = 0; s < 8; s++) {
            vf x = vf_load(row + i + 16 * s);
            n += __builtin_popcount(vf_gt(x, bound));
            part = vf_add(part, vf_above(x, bound));
        }
        vd_add(&sum, part);
    }
    for (; i < C; i += 16) {
        vf x = vf_load_some(row + i, first_lanes(C - i));
        n += __builtin_popcount(vf_gt(x, bound));
        vd_add(&sum, vf_above(x, bound));
    }
    return (Above){vd_sum(sum), limit, n};
}

static Above fixed_point(const float *row, i64 C, double limit) {
    Above here = above(row, C, limit, 1);
    while (here.n) {
        Above there = above(row, C, here.sum / (double)here.n / 2, 1);
        if (there.n == here.n) break;
        here = there;
    }
    return above(row, C, here.limit, 0);
}

static float largest_of(const float *row, i64 C) {
    vi most = vi_all(0); /* floats >= 0 are ordered as their bits */
    for (i64 i = 0; i < C; i += 16) most = vi_max(most, vi_bits(vf_load_some(row + i, first_lanes(C - i))));
    return score_of(vi_highest(most));
}

static int descending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The best n from `few` (fewest magnitudes) to `many`; `scratch` holds C floats. */
static double best_between(const float *row, i64 C, Above few, Above many, float *scratch) {
    double sum = few.sum, best = sum * sum / (double)few.n, scale = sum / (double)few.n;
    i64 n = 0;
    for (i64 i = 0; i < C; i++)
        if (row[i] > many.limit && !(row[i] > few.limit)) scratch[n++] = row[i];
    qsort(scratch, (size_t)n, sizeof(float), descending);
    for (i64 i = 0; i < n; i++) {
        double count = (double)(few.n + i + 1);
        sum += scratch[i];
        if (sum * sum / count > best) best = sum * sum / count, scale = sum / count;
    }
    return scale;
}

API int GLUE(ternary_scales, ISA)(const float *magnitudes, float *scales, i64 R, i64 C, int threads) {
    if (R * C < SMALL_WORK) threads = 1;
    float *memory = aligned(4 * C * threads);
    if (!memory) return 1;
#pragma omp parallel for schedule(dynamic, 64) num_threads(threads) if (threads > 1)
    for (i64 r = 0; r < R; r++) {
        const float *row = magnitudes + r * C;
        float largest = largest_of(row, C);
        if (!(largest < __builtin_inff())) { /* infinite or no number: so is the scale */
            scales[r] = largest;
            continue;
        }
        Above many = fixed_point(row, C, 0), few = fixed_point(row, C, (double)largest / 2);
        double scale = many.n ? many.sum / (double)many.n : 0;
        if (few.n != many.n) scale = best_between(row, C, few, many, memory + C * omp_get_thread_num());
        scales[r] = (float)scale;
    }
    free(memory);
    return 0;
}
