// The affine map of a block of a sample: rows of values of the compute type, channels last, C a pixel.
//
// Coordinates and blend are two loops, so that none waits for memory in the first and none branches in the second. Before
// them the part of the source that the block reads is copied, with one pixel of edge values around the image, channels
// last: the four taps of a pixel are then one offset wherever it lies, and the copy stays in the second-level cache.
// Lanes are the channels of a pixel; for grey pictures they are four pixels.
#pragma once
#include <type_traits>

#include "geometry.h"
#include "vectors.h"

namespace {

constexpr int TIE_GROUP = 8;             // pixels between two looks at the sums
constexpr int64_t WHOLE_SOURCE = 1 << 18;        // values of a source that is copied whole: it fits the second-level cache
constexpr int BLOCK_ROWS = 256, BLOCK_COLS = 256;        // of a block of a larger one; half the rows copy an eighth more source
constexpr int SPARE = 16;                // values that may be read and written past the end of a buffer

struct Block {                           // of the batch
    int first_row, num_rows, first_col, num_cols;
};

struct Window {                          // of the source; its sides may lie one pixel outside
    int first_row, num_rows, first_col, num_cols;
    bool is_direct;                      // too large to copy: each row of the block copies its own taps instead
};

// The arrays of a row of a block, `num_cols` and some more values each.
struct RowTaps {
    double *col_row, *col_col;           // a column's share of the source's row and column
    double *row, *col;                   // the source position, folded
    double *weight[4];                   // of the four taps; without an FMA of the two rows and the two columns
    int32_t *offset;                     // of the first tap in the copied source, values
};

constexpr int ROW_TAPS = 8;              // doubles of them a column

inline int clamped(double value, int low, int high)      // NaN is `low`
{
    return value > low ? (value < high ? (int)value : high) : low;
}

// The columns [*first, *last) of a row for which `base + share` lies within 0 and `end`: it is monotone. A quotient says where
// about they begin and end; where the shares are all but equal it may be far off, so the values themselves decide.
inline void inner_cols(const double *shares, int num_cols, double base, double end, int *first, int *last)
{
    const double start = base + shares[0], stop = base + shares[num_cols - 1];
    const bool rises = stop >= start;
    const double step = num_cols > 1 ? (shares[num_cols - 1] - shares[0]) / (num_cols - 1) : 0.0;
    const auto before = [&](int x) { return rises ? base + shares[x] < 0.0 : base + shares[x] > end; };
    const auto until = [&](int x) { return rises ? base + shares[x] <= end : base + shares[x] >= 0.0; };
    int low = step == 0.0 ? 0 : clamped(((rises ? 0.0 : end) - start) / step, 0, num_cols);
    while (low > 0 && !before(low - 1)) --low;
    while (low < num_cols && before(low)) ++low;
    int high = step == 0.0 ? num_cols : clamped(((rises ? end : 0.0) - start) / step + 1.0, low, num_cols);
    while (high > low && !until(high - 1)) --high;
    while (high < num_cols && until(high)) ++high;
    *first = low;
    *last = high;
}

// The columns of a row of a block that read within the image, borders included; none where a position is NaN.
inline void inner_cols(const RowTaps &taps, int num_cols, double row_row, double row_col, int height, int width, int *first, int *last)
{
    int low, high;
    inner_cols(taps.col_row, num_cols, row_row, height - 1, first, last);
    inner_cols(taps.col_col, num_cols, row_col, width - 1, &low, &high);
    *first = *first > low ? *first : low;
    *last = *last < high ? *last : high;
    if (*first >= *last) *first = *last = 0;
}

// Which part of the source a block reads: the map takes its extremes at the corners.
inline Window window_of(const Job &job, const Placing &placing, const Block &block)
{
    const Window whole = {-1, job.height + 2, -1, job.width + 2, false};
    if ((int64_t)job.height * job.width * job.channels <= WHOLE_SOURCE) return whole;
    double low[2] = {1e300, 1e300}, high[2] = {-1e300, -1e300};
    for (int corner = 0; corner < 4; ++corner) {
        const int row = block.first_row + (corner & 1 ? block.num_rows - 1 : 0);
        const int col = block.first_col + (corner & 2 ? block.num_cols - 1 : 0);
        const int from_row = placing.flip_rows ? job.height - 1 - row : row, from_col = placing.flip_cols ? job.width - 1 - col : col;
        for (int axis = 0; axis < 2; ++axis) {
            const double *inverse = placing.inverse_23[axis];
            const double at = (inverse[2] + from_row * inverse[0]) + from_col * inverse[1];
            low[axis] = at < low[axis] ? at : low[axis];
            high[axis] = at > high[axis] ? at : high[axis];
        }
    }
    const bool folds = job.fill_mode == FILL_REFLECT || job.fill_mode == FILL_WRAP;
    Window window = whole;
    window.is_direct = folds && !(low[0] >= 0.0 && low[1] >= 0.0 && high[0] <= job.height - 1 && high[1] <= job.width - 1);
    if (window.is_direct) return window;
    window.first_row = clamped(low[0] - 1.0, -1, job.height - 1);
    window.first_col = clamped(low[1] - 1.0, -1, job.width - 1);
    window.num_rows = clamped(high[0] + 2.0, window.first_row + 1, job.height) - window.first_row + 1;
    window.num_cols = clamped(high[1] + 2.0, window.first_col + 1, job.width) - window.first_col + 1;
    window.is_direct = (int64_t)window.num_rows * window.num_cols > 4 * (int64_t)block.num_rows * block.num_cols + 4096;
    return window;
}

// One pixel of the source, its channels side by side. A double becomes a float first where the arithmetic is in float.
template <class From, class To>
inline void copy_pixel(const Job &job, const From *image, int row, int col, To *to)
{
    const int64_t step = job.source_channels_last ? 1 : (int64_t)job.height * job.width;
    const From *from = image + ((int64_t)row * job.width + col) * (job.source_channels_last ? job.channels : 1);
    for (int channel = 0; channel < job.channels; ++channel) to[channel] = (To)from[channel * step];
}

// A piece of a row of the source, channels last.
template <class From, class To>
inline void copy_pixels(const Job &job, const From *image, int row, int first_col, int num_cols, To *__restrict__ to)
{
    const int channels = job.channels;
    if (job.source_channels_last || channels == 1) {
        const From *__restrict__ from = image + ((int64_t)row * job.width + first_col) * channels;
        for (int64_t at = 0; at < (int64_t)num_cols * channels; ++at) to[at] = (To)from[at];
        return;
    }
    for (int channel = 0; channel < channels; ++channel) {
        const From *__restrict__ from = image + ((int64_t)channel * job.height + row) * job.width + first_col;
        for (int col = 0; col < num_cols; ++col) to[(int64_t)col * channels + channel] = (To)from[col];
    }
}

template <class From, class To>
void copy_window(const Job &job, const From *image, const Window &window, To *to)
{
    const int64_t row_size = (int64_t)window.num_cols * job.channels;
    const int left = window.first_col < 0, right = window.first_col + window.num_cols > job.width;
    for (int at = 0; at < window.num_rows; ++at, to += row_size) {
        const int wanted = window.first_row + at;
        const int row = wanted < 0 ? 0 : wanted >= job.height ? job.height - 1 : wanted;
        copy_pixels(job, image, row, window.first_col + left, window.num_cols - left - right, to + left * job.channels);
        if (left) copy_pixel(job, image, row, 0, to);
        if (right) copy_pixel(job, image, row, job.width - 1, to + row_size - job.channels);
    }
}

inline void add_to_all(const double *shares, double base, int num_cols, double *sums)
{
    for (int x = 0; x < num_cols; x += 4) narrow(sums + x, base + widen(shares + x));
}

// Where the row's columns [first, last) read and with which weights; four at a time, so a few more than asked for.
template <bool FUSED>
void find_taps(const Job &job, const RowTaps &taps, const Window &window, int first, int last)
{
    // The edge values around the image stand in for every pixel beyond it.
    const D4 low = all(-1.0), last_row = all(job.height - (job.order == 1)), last_col = all(job.width - (job.order == 1));
    const D4 one = all(1.0), half = all(job.order == 1 ? 0.0 : 0.5), first_row = all(window.first_row), first_col = all(window.first_col);
    const D4 step = all((double)window.num_cols * job.channels), channels = all(job.channels);
    // The pointers by themselves: what is stored could be one of them, for all that the compiler knows.
    const double *const rows = taps.row, *const cols = taps.col;
    double *const weight_0 = taps.weight[0], *const weight_1 = taps.weight[1];
    double *const weight_2 = taps.weight[2], *const weight_3 = taps.weight[3];
    int32_t *const offsets = taps.offset;
    for (int x = first; x < last; x += 4) {
        const D4 at_row = widen(rows + x), at_col = widen(cols + x);
        const D4 row = floored(at_row + half), col = floored(at_col + half);
        const D4 row_0 = one - (at_row - row), row_1 = one - row_0, col_0 = one - (at_col - col), col_1 = one - col_0;
        narrow(weight_0 + x, FUSED ? row_0 * col_0 : row_0);
        narrow(weight_1 + x, FUSED ? row_0 * col_1 : row_1);
        narrow(weight_2 + x, FUSED ? row_1 * col_0 : col_0);
        narrow(weight_3 + x, FUSED ? row_1 * col_1 : col_1);
        const D4 from_row = (lower(higher(row, low), last_row) - first_row) * step;
        const I4 offset = truncated(from_row + (lower(higher(col, low), last_col) - first_col) * channels);
        std::memcpy(offsets + x, &offset, sizeof offset);
    }
}

// A row that copies its own taps: two lines of two pixels a column.
template <class From, class To>
void copy_taps(const Job &job, const From *image, const RowTaps &taps, int num_cols, int first, int last, To *to)
{
    const double half = job.order == 1 ? 0.0 : 0.5;
    const int channels = job.channels, last_row = job.height - 1, last_col = job.width - 1;
    To *lower = to + (int64_t)2 * num_cols * channels;
    for (int x = first; x < last; ++x) {
        const int row = clamped(std::floor(taps.row[x] + half), -1, last_row + 1);
        const int col = clamped(std::floor(taps.col[x] + half), -1, last_col + 1);
        const int rows[2] = {table::fold_tap(row, job.height), table::fold_tap(row + 1, job.height)};
        const int cols[2] = {table::fold_tap(col, job.width), table::fold_tap(col + 1, job.width)};
        const int64_t at = (int64_t)2 * x * channels;
        for (int next = 0; next < 2; ++next) {
            copy_pixel(job, image, rows[0], cols[next], to + at + next * channels);
            copy_pixel(job, image, rows[1], cols[next], lower + at + next * channels);
        }
        taps.offset[x] = (int32_t)at;
    }
}

// ---------------------------------------------------------------------------------------------------- the blend
// What SciPy stores: the double cast to the image's dtype, or rounded half up and saturated for uint8.
template <bool ROUND> inline D4 rounded(D4 value)
{
    if (!ROUND) return value;
    return floored(lower(higher(value + 0.5, D4{}), all(255.0)));
}

// SciPy's sum, in its order: each product rounded, one weight after the other.
inline D4 blend_in_order(const D4 tap[4], D4 row_0, D4 row_1, D4 col_0, D4 col_1)
{
    D4 sum = (tap[0] * row_0) * col_0;
    sum = sum + (tap[1] * row_0) * col_1;
    sum = sum + (tap[2] * row_1) * col_0;
    return sum + (tap[3] * row_1) * col_1;
}

// The sum in half the operations; see blend_fused of sampling.cuh for how far it may be off.
inline D4 blend_fused(const D4 tap[4], const D4 weight[4])
{
    D4 sum = tap[0] * weight[0];
    sum = fused(tap[1], weight[1], sum);
    sum = fused(tap[2], weight[2], sum);
    return fused(tap[3], weight[3], sum);
}

// The four taps of channels [channel, channel + 4) of a pixel; lanes past the last channel hold what follows.
template <class Source> inline void read_taps(const Source *upper, int64_t row_step, int channels, D4 tap[4])
{
    const Source *const lower = upper + row_step;
    tap[0] = widen(upper);
    tap[1] = widen(upper + channels);
    tap[2] = widen(lower);
    tap[3] = widen(lower + channels);
}

// In SciPy's order, where the arrays hold products of weights: the factors are made again.
template <class Source, class Compute>
[[gnu::noinline]] void blend_again(const RowTaps &taps, const Source *source, int64_t row_step, int channels, int first, int last, Compute *row)
{
    for (int x = first; x < last; ++x) {
        const double row_0 = 1.0 - (taps.row[x] - floored(taps.row[x])), col_0 = 1.0 - (taps.col[x] - floored(taps.col[x]));
        for (int channel = 0; channel < channels; channel += 4) {
            D4 tap[4];
            read_taps(source + taps.offset[x] + channel, row_step, channels, tap);
            narrow(row + (int64_t)x * channels + channel, blend_in_order(tap, all(row_0), all(1.0 - row_0), all(col_0), all(1.0 - col_0)));
        }
    }
}

// Columns [first, last) of a row, C channels each or, with C = 0, as many as the job says. Lanes past a pixel's last channel
// spill into the next pixel, which is written after it, or into the spare values at the end.
template <int C, bool FUSED, bool ROUND, class Source, class Compute>
void blend(const Job &job, const RowTaps &taps, const Source *source, int64_t row_step, int first, int last, Compute *row)
{
    const int channels = C ? C : job.channels;
    const double *const weight_0 = taps.weight[0], *const weight_1 = taps.weight[1];
    const double *const weight_2 = taps.weight[2], *const weight_3 = taps.weight[3];
    const int32_t *const offset = taps.offset;
    for (int group = first; group < last; group += TIE_GROUP) {
        const int end = group + TIE_GROUP < last ? group + TIE_GROUP : last;
        TieWatch watch;
        for (int x = group; x < end; ++x) {
            const D4 weight[4] = {all(weight_0[x]), all(weight_1[x]), all(weight_2[x]), all(weight_3[x])};
            for (int channel = 0; channel < channels; channel += 4) {
                D4 tap[4];
                read_taps(source + offset[x] + channel, row_step, channels, tap);
                const D4 sum = FUSED ? blend_fused(tap, weight) : blend_in_order(tap, weight[0], weight[1], weight[2], weight[3]);
                if (FUSED) watch.see(sum);
                narrow(row + (int64_t)x * channels + channel, rounded<ROUND>(sum));
            }
        }
        if (FUSED && __builtin_expect(watch.fired(), 0)) blend_again(taps, source, row_step, channels, group, end, row);
    }
}

#if defined(__AVX2__)
// 8-bit RGB, the everyday picture: lanes are four pixels, so that none is idle. A pixel's two taps of a line are six bytes
// that lie side by side; a shuffle brings one of them to the bottom of its lane, under the 2^52 that is planted on top.
inline __m256i read_pairs(const uint8_t *source, const int32_t *offset)
{
    const auto two = [&](int lane) {
        const void *first = source + offset[lane], *second = source + offset[lane + 1];
        return _mm_loadh_pd(_mm_castsi128_pd(_mm_loadl_epi64((const __m128i *)first)), (const double *)second);
    };
    const __m128d low = two(0), high = two(2);
    return _mm256_blend_epi16(_mm256_castpd_si256(_mm256_insertf128_pd(_mm256_castpd128_pd256(low), high, 1)),
                              _mm256_set1_epi64x(0x4330000000000000), 0x88);
}

template <int BYTE> inline D4 widen_byte(__m256i pairs)
{
    constexpr char K = BYTE, Z = -1;
    const __m256i bytes = _mm256_setr_epi8(K, Z, Z, Z, Z, Z, 6, 7, K + 8, Z, Z, Z, Z, Z, 14, 15, K, Z, Z, Z, Z, Z, 6, 7, K + 8, Z, Z, Z, Z, Z, 14, 15);
    return (D4)_mm256_shuffle_epi8(pairs, bytes) - 4503599627370496.0;
}

inline void blend_rgb8(const Job &job, const RowTaps &taps, const uint8_t *source, int64_t row_step, int first, int last, float *row)
{
    const double *const weight_0 = taps.weight[0], *const weight_1 = taps.weight[1];
    const double *const weight_2 = taps.weight[2], *const weight_3 = taps.weight[3];
    const int32_t *const offset = taps.offset;
    int x = first;
    for (; x + 4 <= last; x += 4) {
        const __m256i upper = read_pairs(source, offset + x), lower = read_pairs(source + row_step, offset + x);
        const D4 weight[4] = {widen(weight_0 + x), widen(weight_1 + x), widen(weight_2 + x), widen(weight_3 + x)};
        const D4 red[4] = {widen_byte<0>(upper), widen_byte<3>(upper), widen_byte<0>(lower), widen_byte<3>(lower)};
        const D4 green[4] = {widen_byte<1>(upper), widen_byte<4>(upper), widen_byte<1>(lower), widen_byte<4>(lower)};
        const D4 blue[4] = {widen_byte<2>(upper), widen_byte<5>(upper), widen_byte<2>(lower), widen_byte<5>(lower)};
        const D4 sums[3] = {blend_fused(red, weight), blend_fused(green, weight), blend_fused(blue, weight)};
        TieWatch watch;
        for (const D4 &sum : sums) watch.see(sum);
        const __m128 r = _mm256_cvtpd_ps((__m256d)sums[0]), g = _mm256_cvtpd_ps((__m256d)sums[1]), b = _mm256_cvtpd_ps((__m256d)sums[2]);
        const __m128 rg = _mm_shuffle_ps(r, g, 0x88), gb = _mm_shuffle_ps(g, b, 0xdd), br = _mm_shuffle_ps(b, r, 0xd8);      // r0r2g0g2 g1g3b1b3 b0b2r1r3
        _mm_storeu_ps(row + 3 * x, _mm_shuffle_ps(rg, br, 0x88));            // r0 g0 b0 r1
        _mm_storeu_ps(row + 3 * x + 4, _mm_shuffle_ps(gb, rg, 0xd8));        // g1 b1 r2 g2
        _mm_storeu_ps(row + 3 * x + 8, _mm_shuffle_ps(br, gb, 0xdd));        // b2 r3 g3 b3
        if (__builtin_expect(watch.fired(), 0)) blend_again(taps, source, row_step, 3, x, x + 4, row);
    }
    blend<3, true, false>(job, taps, source, row_step, x, last, row);
}
#endif

// The same for grey pictures: four pixels at a time. What is read past `last` are offsets of 0 (see warp_row).
template <bool FUSED, bool ROUND, class Source, class Compute>
void blend_grey(const RowTaps &taps, const Source *source, int64_t row_step, int first, int last, Compute *row)
{
    for (int x = first; x < last; x += 4) {
        const int32_t *offset = taps.offset + x;
        const Source *a = source + offset[0], *b = source + offset[1], *c = source + offset[2], *d = source + offset[3];
        const Source *e = a + row_step, *f = b + row_step, *g = c + row_step, *h = d + row_step;
        const D4 tap[4] = {widen(*a, *b, *c, *d), widen(a[1], b[1], c[1], d[1]), widen(*e, *f, *g, *h), widen(e[1], f[1], g[1], h[1])};
        const D4 weight[4] = {widen(taps.weight[0] + x), widen(taps.weight[1] + x), widen(taps.weight[2] + x), widen(taps.weight[3] + x)};
        D4 sum;
        bool in_order = !FUSED;
        if (FUSED) {
            TieWatch watch;
            sum = blend_fused(tap, weight);
            watch.see(sum);
            in_order = watch.fired();
        }
        if (__builtin_expect(in_order, !FUSED)) {
            D4 row_0 = weight[0], row_1 = weight[1], col_0 = weight[2], col_1 = weight[3];
            if (FUSED) {
                const D4 at_row = widen(taps.row + x), at_col = widen(taps.col + x);
                row_0 = 1.0 - (at_row - floored(at_row));
                col_0 = 1.0 - (at_col - floored(at_col));
                row_1 = 1.0 - row_0;
                col_1 = 1.0 - col_0;
            }
            sum = blend_in_order(tap, row_0, row_1, col_0, col_1);
        }
        narrow(row + x, rounded<ROUND>(sum));
    }
}

// Order 0: a copy of one pixel a column; four channels at a time, which spill as the blend's do.
template <int C, bool ROUND, class Source, class Compute>
void pick(const Job &job, const RowTaps &taps, const Source *source, int first, int last, Compute *row)
{
    const int channels = C ? C : job.channels;
    const int32_t *const offset = taps.offset;
    Compute *to = row + (int64_t)first * channels;
    for (int x = first; x < last; ++x, to += channels)
        for (int channel = 0; channel < channels; channel += 4) narrow(to + channel, rounded<ROUND>(widen(source + offset[x] + channel)));
}

template <class Source, class Compute>
void pick_any(const Job &job, const RowTaps &taps, const Source *source, int first, int last, Compute *row)
{
    if (job.round_affine) return pick<0, true>(job, taps, source, first, last, row);
    if (job.channels == 3) return pick<3, false>(job, taps, source, first, last, row);
    return pick<0, false>(job, taps, source, first, last, row);
}

template <bool FUSED, bool ROUND, class Source, class Compute>
void blend_any(const Job &job, const RowTaps &taps, const Source *source, int64_t row_step, int first, int last, Compute *row)
{
#if defined(__AVX2__)
    if constexpr (FUSED && sizeof(Source) == 1 && sizeof(Compute) == 4) {
        if (job.channels == 3) return blend_rgb8(job, taps, source, row_step, first, last, row);
    }
#endif
    switch (job.channels) {
    case 1: return blend_grey<FUSED, ROUND>(taps, source, row_step, first, last, row);
    case 3: return blend<3, FUSED, ROUND>(job, taps, source, row_step, first, last, row);
    case 4: return blend<4, FUSED, ROUND>(job, taps, source, row_step, first, last, row);
    default: return blend<0, FUSED, ROUND>(job, taps, source, row_step, first, last, row);
    }
}

// ---------------------------------------------------------------------------------------------------- a block
// Where a thread works; every buffer has SPARE values more.
template <class Source> struct AffineScratch {
    RowTaps taps;
    Source *copy;                        // of the window, or of one row's taps
};

// The values that a block's copy may take.
inline int64_t copy_values(const Job &job)
{
    const int64_t whole = (int64_t)(job.height + 2) * (job.width + 2) * job.channels;
    const int64_t window = (4 * (int64_t)BLOCK_ROWS * BLOCK_COLS + 4096) * job.channels;
    if ((int64_t)job.height * job.width * job.channels <= WHOLE_SOURCE || whole < window) return whole;
    return window > (int64_t)4 * BLOCK_COLS * job.channels ? window : (int64_t)4 * BLOCK_COLS * job.channels;
}

// Calls use(local) for each row of a block, when its values stand at values_of(local).
template <class From, class Source, class ValuesOf, class Use>
void warp_block(const Job &job, const Placing &placing, const Block &block, const From *image, const AffineScratch<Source> &scratch,
                ValuesOf values_of, Use use)
{
    typedef std::remove_pointer_t<decltype(values_of(0))> Compute;

    // Only where 8- and 16-bit pixels become floats can the last bits of a double not be seen.
    constexpr bool MAY_FUSE = HAS_FMA && sizeof(Source) < 4 && sizeof(Compute) == 4;
    const bool is_fused = MAY_FUSE && job.order == 1 && !job.round_affine;
    const RowTaps &taps = scratch.taps;
    const double(*inverse)[3] = placing.inverse_23;
    const int num_cols = block.num_cols, channels = job.channels;
    const Window window = window_of(job, placing, block);
    if (!window.is_direct) copy_window(job, image, window, scratch.copy);
    const int64_t row_step = (window.is_direct ? (int64_t)2 * num_cols : window.num_cols) * channels;
    for (int x = 0; x < num_cols; ++x) {
        const int col = block.first_col + x, from = placing.flip_cols ? job.width - 1 - col : col;
        taps.col_row[x] = from * inverse[0][1];
        taps.col_col[x] = from * inverse[1][1];
    }
    const Compute fill = job.round_affine ? (Compute)rounded<true>(all(job.cval))[0] : (Compute)job.cval;
    for (int local = 0; local < block.num_rows; ++local) {
        Compute *out = values_of(local);
        const int row = block.first_row + local, from = placing.flip_rows ? job.height - 1 - row : row;
        const double row_row = inverse[0][2] + from * inverse[0][0], row_col = inverse[1][2] + from * inverse[1][0];
        add_to_all(taps.col_row, row_row, num_cols, taps.row);
        add_to_all(taps.col_col, row_col, num_cols, taps.col);
        int first = 0, last = num_cols;
        if (job.fill_mode != FILL_NEAREST) {
            inner_cols(taps, num_cols, row_row, row_col, job.height, job.width, &first, &last);
            if (job.fill_mode != FILL_CONSTANT) {
                const auto fold_cols = [&](int start, int stop) {
                    for (int x = start; x < stop; ++x) {
                        taps.row[x] = fold(taps.row[x], job.height, job.fill_mode);
                        taps.col[x] = fold(taps.col[x], job.width, job.fill_mode);
                    }
                };
                fold_cols(0, first);
                fold_cols(last, num_cols);
                first = 0;
                last = num_cols;
            }
        }
        if (!(std::fabs(taps.row[0]) + std::fabs(taps.row[num_cols - 1]) + std::fabs(taps.col[0]) + std::fabs(taps.col[num_cols - 1])
              < FLOOR_LIMIT)) {
            // Nothing of the image is left there, and a coordinate without a fraction weighs the same edge twice.
            for (int x = first; x < last; ++x) {
                taps.row[x] = std::fabs(taps.row[x]) < FLOOR_LIMIT ? taps.row[x] : taps.row[x] > 0.0 ? job.height + 1.0 : -2.0;
                taps.col[x] = std::fabs(taps.col[x]) < FLOOR_LIMIT ? taps.col[x] : taps.col[x] > 0.0 ? job.width + 1.0 : -2.0;
            }
        }
        if (is_fused) find_taps<true>(job, taps, window, first, last);
        else find_taps<false>(job, taps, window, first, last);
        if (window.is_direct) copy_taps(job, image, taps, num_cols, first, last, scratch.copy);
        for (int x = last; x < last + 4; ++x) taps.offset[x] = 0;
        if (job.order == 0) pick_any(job, taps, scratch.copy, first, last, out);
        else if (job.round_affine) blend_any<false, true>(job, taps, scratch.copy, row_step, first, last, out);
        else if (is_fused) blend_any<MAY_FUSE, false>(job, taps, scratch.copy, row_step, first, last, out);
        else blend_any<false, false>(job, taps, scratch.copy, row_step, first, last, out);
        for (int64_t at = 0; at < (int64_t)first * channels; ++at) out[at] = fill;
        for (int64_t at = (int64_t)last * channels; at < (int64_t)num_cols * channels; ++at) out[at] = fill;
        use(local);
    }
}

// Rows of a sample that is not resampled, mirrored as its row of the table asks.
template <class From, class ValuesOf, class Use>
void copy_block(const Job &job, const Placing &placing, const Block &block, const From *image, ValuesOf values_of, Use use)
{
    typedef std::remove_pointer_t<decltype(values_of(0))> Compute;
    const int channels = job.channels;
    for (int local = 0; local < block.num_rows; ++local) {
        Compute *out = values_of(local);
        const int row = block.first_row + local, from = placing.flip_rows ? job.height - 1 - row : row;
        const int first_col = placing.flip_cols ? job.width - block.first_col - block.num_cols : block.first_col;
        copy_pixels(job, image, from, first_col, block.num_cols, out);
        for (int left = 0, right = block.num_cols - 1; placing.flip_cols && left < right; ++left, --right)
            for (int channel = 0; channel < channels; ++channel) {
                const Compute kept = out[left * channels + channel];
                out[left * channels + channel] = out[right * channels + channel];
                out[right * channels + channel] = kept;
            }
        use(local);
    }
}

} // namespace
