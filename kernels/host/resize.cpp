// One instruction set's resize: Pillow's two passes over an 8-bit image, in its integers, so equal to the bit
// (ImagingResample in Pillow's Resample.c). Compiled once for each instruction set, with SET its name (build.py).
//
// A weight has 22 bits after the point and a sign, too many for the multiplications of 16 bits that a CPU does two of at
// once and adds up: it is split into two halves of 11 bits, each summed by itself. Sums may wrap; the whole does not.
#include "resize.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int PRECISION_BITS = 22, HALF_BITS = 11;
constexpr int64_t SPARE = 64;            // bytes that may be read past the end of a buffer

int64_t padded(int64_t bytes) { return (bytes + SPARE + 63) & ~(int64_t)63; }

uint8_t saturated(int32_t sum)
{
    sum >>= PRECISION_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// An image in memory of this program.
struct Pixels {
    const uint8_t *at;
    int64_t pitch;
    int height, width, pixel_bytes;
};

bool has_alpha(const ResizeJob &job) { return job.channels == 2 || job.channels == 4; }

// The rows of the source that the pass down reads.
void span_of(const LineTable &table, int *first, int *last)
{
    *first = table.first[0];
    *last = 0;
    for (int at = 0; at < table.length; ++at) {
        const int end = table.first[at] + table.count[at];
        *last = end > *last ? end : *last;
    }
}

// ---------------------------------------------------------------------------------------------------- across
// Weights of a table side by side for each output pixel, two taps at a time: the upper halves of both, the lower of both.
struct PackedWeights {
    int32_t *words;                      // (length, pairs, 2)
    int pairs;
};

int pairs_of(const LineTable &table, int channels) { return channels == 1 ? (table.taps + 7) / 8 * 4 : (table.taps + 1) / 2; }

int32_t packed_pair(int first, int second) { return (int32_t)((uint32_t)(uint16_t)first | (uint32_t)(uint16_t)second << 16); }

[[maybe_unused]] void pack_weights(const LineTable &table, PackedWeights packed)
{
    for (int x = 0; x < table.length; ++x) {
        const auto weight = [&](int tap) { return tap < table.count[x] ? table.weights[(int64_t)tap * table.length + x] : 0; };
        int32_t *to = packed.words + (int64_t)x * packed.pairs * 2;
        for (int pair = 0; pair < packed.pairs; ++pair, to += 2) {
            const int a = weight(2 * pair), b = weight(2 * pair + 1), mask = (1 << HALF_BITS) - 1;
            to[0] = packed_pair(a >> HALF_BITS, b >> HALF_BITS);
            to[1] = packed_pair(a & mask, b & mask);
        }
    }
}

#if defined(__x86_64__)
// The channels of two neighbouring pixels as pairs of 16-bit words: R0 R1 G0 G1 B0 B1 A0 A1.
inline __m128i two_pixels(const uint8_t *at, int pixel_bytes)
{
    int32_t first, second;
    std::memcpy(&first, at, 4);
    std::memcpy(&second, at + pixel_bytes, 4);
    return _mm_unpacklo_epi8(_mm_unpacklo_epi8(_mm_cvtsi32_si128(first), _mm_cvtsi32_si128(second)), _mm_setzero_si128());
}

inline void put_pixel(__m128i sums, uint8_t *to, int channels)
{
    const __m128i levels = _mm_srai_epi32(sums, PRECISION_BITS), words = _mm_packs_epi32(levels, levels);
    const int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    std::memcpy(to, &pixel, channels);
}

#if defined(__AVX2__)
// Two rows' sums of one output pixel, a row in each half of a register, and how two pairs of their pixels are added.
struct TwoRows {
    const uint8_t *first, *second;
    __m256i upper, lower;

    void start()
    {
        upper = _mm256_setzero_si256();
        lower = _mm256_set1_epi32(1 << (PRECISION_BITS - 1));
    }
    __m256i four_pixels(int64_t at) const
    {
        const __m128i above = _mm_loadu_si128((const __m128i *)(const void *)(first + at));
        return _mm256_inserti128_si256(_mm256_castsi128_si256(above), _mm_loadu_si128((const __m128i *)(const void *)(second + at)), 1);
    }
    void add(__m256i pixels, __m256i pick, __m256i high, __m256i low)
    {
        const __m256i words = _mm256_shuffle_epi8(pixels, pick);
        upper = _mm256_add_epi32(upper, _mm256_madd_epi16(words, high));
        lower = _mm256_add_epi32(lower, _mm256_madd_epi16(words, low));
    }
    __m256i levels() const { return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(upper, HALF_BITS), lower), PRECISION_BITS); }
};

// Four rows, which share the weights. One load holds the four pixels of two pairs, and a few bytes more, which may lie past
// the end of a row and are weighed with 0. No array is kept of what must stay in registers: GCC would put it into memory.
template <int C, int PIXEL_BYTES>
void across_four(const uint8_t *const rows[4], const LineTable &table, PackedWeights packed, uint8_t *to, int64_t to_pitch)
{
    const auto picked_from = [](char at) {        // the words of two neighbouring pixels, as in `two_pixels`
        const char next = at + PIXEL_BYTES;
        return _mm256_broadcastsi128_si256(_mm_setr_epi8(at, -1, next, -1, at + 1, -1, next + 1, -1, at + 2, -1, next + 2, -1, at + 3, -1, next + 3, -1));
    };
    const __m256i pick = picked_from(0), pick_next = picked_from(2 * PIXEL_BYTES);
    const int32_t *weight = packed.words;
    const auto same = [&](int word) { return _mm256_set1_epi32(weight[word]); };
    TwoRows top = {rows[0], rows[1], {}, {}}, bottom = {rows[2], rows[3], {}, {}};
    for (int x = 0; x < table.length; ++x, to += C) {
        int64_t at = (int64_t)table.first[x] * PIXEL_BYTES;
        top.start();
        bottom.start();
        int pairs = packed.pairs;
        for (; pairs > 1; pairs -= 2, at += 4 * PIXEL_BYTES, weight += 4) {
            const __m256i above = top.four_pixels(at), below = bottom.four_pixels(at);
            top.add(above, pick, same(0), same(1));
            bottom.add(below, pick, same(0), same(1));
            top.add(above, pick_next, same(2), same(3));
            bottom.add(below, pick_next, same(2), same(3));
        }
        if (pairs) {
            top.add(top.four_pixels(at), pick, same(0), same(1));
            bottom.add(bottom.four_pixels(at), pick, same(0), same(1));
            weight += 2;
        }
        const __m256i words = _mm256_packs_epi32(top.levels(), bottom.levels()), bytes = _mm256_packus_epi16(words, words);
        const __m128i even = _mm256_castsi256_si128(bytes), odd = _mm256_extracti128_si256(bytes, 1);
        const auto put = [&](int row, int32_t pixel) {
            // Four bytes are one store, and three are two: the fourth is the next pixel's, which is still to come. After the
            // last pixel it would be the next row's first, which is not.
            if (C == 4 || x + 1 < table.length) std::memcpy(to + row * to_pitch, &pixel, 4);
            else std::memcpy(to + row * to_pitch, &pixel, C);
        };
        put(0, _mm_cvtsi128_si32(even));
        put(1, _mm_cvtsi128_si32(odd));
        put(2, _mm_extract_epi32(even, 1));
        put(3, _mm_extract_epi32(odd, 1));
    }
}
#endif

template <int C> void across_row(const uint8_t *row, int pixel_bytes, const LineTable &table, PackedWeights packed, uint8_t *to)
{
    const int32_t *weight = packed.words;
    for (int x = 0; x < table.length; ++x) {
        const uint8_t *at = row + (int64_t)table.first[x] * pixel_bytes;
        __m128i upper = _mm_setzero_si128(), lower = C == 1 ? upper : _mm_set1_epi32(1 << (PRECISION_BITS - 1));
        if (C == 1) {                    // eight taps at a time; their weights lie high, low, high, low
            for (int pair = 0; pair < packed.pairs; pair += 4, at += 8, weight += 8) {
                const __m128i words = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)at), _mm_setzero_si128());
                const __m128 a = _mm_loadu_ps((const float *)(const void *)weight), b = _mm_loadu_ps((const float *)(const void *)(weight + 4));
                upper = _mm_add_epi32(upper, _mm_madd_epi16(words, _mm_castps_si128(_mm_shuffle_ps(a, b, 0x88))));
                lower = _mm_add_epi32(lower, _mm_madd_epi16(words, _mm_castps_si128(_mm_shuffle_ps(a, b, 0xdd))));
            }
            __m128i sums = _mm_add_epi32(_mm_slli_epi32(upper, HALF_BITS), lower);
            sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
            sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1));
            to[x] = saturated(_mm_cvtsi128_si32(sums) + (1 << (PRECISION_BITS - 1)));
        } else {
            for (int pair = 0; pair < packed.pairs; ++pair, at += 2 * pixel_bytes, weight += 2) {
                const __m128i words = two_pixels(at, pixel_bytes);
                upper = _mm_add_epi32(upper, _mm_madd_epi16(words, _mm_set1_epi32(weight[0])));
                lower = _mm_add_epi32(lower, _mm_madd_epi16(words, _mm_set1_epi32(weight[1])));
            }
            put_pixel(_mm_add_epi32(_mm_slli_epi32(upper, HALF_BITS), lower), to + (int64_t)x * C, C);
        }
    }
}
#endif

// Any number of channels, without a word of any CPU.
void across_plain(const uint8_t *row, int pixel_bytes, int channels, const LineTable &table, uint8_t *to)
{
    for (int x = 0; x < table.length; ++x) {
        const uint8_t *at = row + (int64_t)table.first[x] * pixel_bytes;
        uint32_t sums[4] = {1u << (PRECISION_BITS - 1), 1u << (PRECISION_BITS - 1), 1u << (PRECISION_BITS - 1), 1u << (PRECISION_BITS - 1)};
        for (int tap = 0; tap < table.count[x]; ++tap, at += pixel_bytes) {
            const uint32_t weight = (uint32_t)table.weights[(int64_t)tap * table.length + x];
            for (int channel = 0; channel < channels; ++channel) sums[channel] += at[channel] * weight;
        }
        for (int channel = 0; channel < channels; ++channel) to[(int64_t)x * channels + channel] = saturated((int32_t)sums[channel]);
    }
}

// Resizes the rows. `line` is room for four rows, from which a few bytes more than there are may be read.
void across(const Pixels &from, int channels, const LineTable &table, PackedWeights packed, uint8_t *line, uint8_t *to)
{
    const int64_t used = (int64_t)(from.width - 1) * from.pixel_bytes + channels, room = padded((int64_t)from.width * from.pixel_bytes + 16 * from.pixel_bytes);
    const int64_t pitch = (int64_t)table.length * channels;
    int row = 0;
#if defined(__x86_64__)
    if (channels != 2) {
        pack_weights(table, packed);
#if defined(__AVX2__)
        for (; channels > 2 && row + 4 <= from.height; row += 4, to += 4 * pitch) {
            const uint8_t *rows[4];
            // Past the end of a row lie the rows after it; the last ones, and all where rows lie upside down, are copied.
            const bool is_near_end = (from.height - row - 4) * from.pitch < 2 * packed.pairs * from.pixel_bytes + 16;
            for (int at = 0; at < 4; ++at) {
                rows[at] = from.at + (row + at) * from.pitch;
                if (is_near_end) rows[at] = (const uint8_t *)std::memcpy(line + at * room, rows[at], used);
            }
            if (channels == 4) across_four<4, 4>(rows, table, packed, to, pitch);
            else if (from.pixel_bytes == 4) across_four<3, 4>(rows, table, packed, to, pitch);
            else across_four<3, 3>(rows, table, packed, to, pitch);
        }
#endif
        for (; row < from.height; ++row, to += pitch) {
            std::memcpy(line, from.at + row * from.pitch, used);
            if (channels == 1) across_row<1>(line, from.pixel_bytes, table, packed, to);
            else if (channels == 3) across_row<3>(line, from.pixel_bytes, table, packed, to);
            else across_row<4>(line, from.pixel_bytes, table, packed, to);
        }
        return;
    }
#endif
    (void)packed;
    (void)line;
    (void)used;
    (void)room;
    for (; row < from.height; ++row, to += pitch) across_plain(from.at + row * from.pitch, from.pixel_bytes, channels, table, to);
}

// ---------------------------------------------------------------------------------------------------- down
#if defined(__x86_64__)
// The widest register of 8-bit values, and what the pass needs of it. The wider one interleaves and packs within each of
// its halves: what the interleaving has put out of order, the packing puts back.
#if defined(__AVX2__)
typedef __m256i Bytes;
inline Bytes same_in_all(int value) { return _mm256_set1_epi32(value); }
inline Bytes load(const uint8_t *at) { return _mm256_loadu_si256((const Bytes *)(const void *)at); }
inline void store(uint8_t *at, Bytes value) { _mm256_storeu_si256((Bytes *)(void *)at, value); }
inline Bytes low_halves(Bytes a, Bytes b) { return _mm256_unpacklo_epi8(a, b); }
inline Bytes high_halves(Bytes a, Bytes b) { return _mm256_unpackhi_epi8(a, b); }
inline Bytes sum(Bytes a, Bytes b) { return _mm256_add_epi32(a, b); }
inline Bytes sum_of_products(Bytes a, Bytes b) { return _mm256_madd_epi16(a, b); }
inline Bytes level(Bytes upper, Bytes lower) { return _mm256_srai_epi32(sum(_mm256_slli_epi32(upper, HALF_BITS), lower), PRECISION_BITS); }
inline Bytes narrowed(Bytes a, Bytes b, Bytes c, Bytes d) { return _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)); }
#else
typedef __m128i Bytes;
inline Bytes same_in_all(int value) { return _mm_set1_epi32(value); }
inline Bytes load(const uint8_t *at) { return _mm_loadu_si128((const Bytes *)(const void *)at); }
inline void store(uint8_t *at, Bytes value) { _mm_storeu_si128((Bytes *)(void *)at, value); }
inline Bytes low_halves(Bytes a, Bytes b) { return _mm_unpacklo_epi8(a, b); }
inline Bytes high_halves(Bytes a, Bytes b) { return _mm_unpackhi_epi8(a, b); }
inline Bytes sum(Bytes a, Bytes b) { return _mm_add_epi32(a, b); }
inline Bytes sum_of_products(Bytes a, Bytes b) { return _mm_madd_epi16(a, b); }
inline Bytes level(Bytes upper, Bytes lower) { return _mm_srai_epi32(sum(_mm_slli_epi32(upper, HALF_BITS), lower), PRECISION_BITS); }
inline Bytes narrowed(Bytes a, Bytes b, Bytes c, Bytes d) { return _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d)); }
#endif
#endif

// One row of `size` values out of the rows below each other from `from` on.
void down_row(const uint8_t *from, int64_t pitch, int64_t size, const LineTable &table, int out, uint8_t *to)
{
    const int count = table.count[out];
    const auto weight = [&](int tap) { return tap < count ? table.weights[(int64_t)tap * table.length + out] : 0; };
    int64_t x = 0;
#if defined(__x86_64__)
    constexpr int64_t LANES = sizeof(Bytes);      // so many values stay in registers while the taps go by, two rows at a time
    for (; x + LANES <= size; x += LANES) {
        Bytes upper[4], lower[4];
#pragma GCC unroll 4       // else GCC keeps the sums in memory
        for (int part = 0; part < 4; ++part) {
            upper[part] = same_in_all(0);
            lower[part] = same_in_all(1 << (PRECISION_BITS - 1));
        }
        for (int tap = 0; tap < count; tap += 2) {
            const int a = weight(tap), b = weight(tap + 1), mask = (1 << HALF_BITS) - 1;
            const Bytes high = same_in_all(packed_pair(a >> HALF_BITS, b >> HALF_BITS)), low = same_in_all(packed_pair(a & mask, b & mask));
            const uint8_t *at = from + tap * pitch + x;
            const Bytes first = load(at), second = load(tap + 1 < count ? at + pitch : at);
            const Bytes zero = same_in_all(0), left = low_halves(first, second), right = high_halves(first, second);
            const Bytes words[4] = {low_halves(left, zero), high_halves(left, zero), low_halves(right, zero), high_halves(right, zero)};
#pragma GCC unroll 4
            for (int part = 0; part < 4; ++part) {
                upper[part] = sum(upper[part], sum_of_products(words[part], high));
                lower[part] = sum(lower[part], sum_of_products(words[part], low));
            }
        }
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) upper[part] = level(upper[part], lower[part]);
        store(to + x, narrowed(upper[0], upper[1], upper[2], upper[3]));
    }
#endif
    constexpr int64_t PIECE = 64;
    for (; x < size; x += PIECE) {
        const int64_t length = size - x < PIECE ? size - x : PIECE;
        uint32_t sums[PIECE];
        for (int64_t at = 0; at < length; ++at) sums[at] = 1u << (PRECISION_BITS - 1);
        for (int tap = 0; tap < count; ++tap) {
            const uint8_t *row = from + tap * pitch + x;
            const uint32_t by = (uint32_t)weight(tap);
            for (int64_t at = 0; at < length; ++at) sums[at] += row[at] * by;
        }
        for (int64_t at = 0; at < length; ++at) to[x + at] = saturated((int32_t)sums[at]);
    }
}

// Resizes the columns; `from` starts at row `origin` of the image, its pixels lie without a gap.
void down(const Pixels &from, int origin, const LineTable &table, uint8_t *to)
{
    const int64_t size = (int64_t)from.width * from.pixel_bytes;
    for (int out = 0; out < table.length; ++out, to += size)
        down_row(from.at + (table.first[out] - origin) * from.pitch, from.pitch, size, table, out, to);
}

// ---------------------------------------------------------------------------------------------------- alpha
// Pillow multiplies the colours by alpha, which is the last channel, before it resizes, and divides them after.
void copy_premultiplied(const Pixels &from, int channels, uint8_t *to)
{
    for (int row = 0; row < from.height; ++row) {
        const uint8_t *at = from.at + row * from.pitch;
        for (int col = 0; col < from.width; ++col, at += from.pixel_bytes, to += channels) {
            const int alpha = at[channels - 1];
            for (int channel = 0; channel < channels - 1; ++channel) {
                const int product = at[channel] * alpha + 128;
                to[channel] = (uint8_t)(((product >> 8) + product) >> 8);
            }
            to[channels - 1] = (uint8_t)alpha;
        }
    }
}

void unpremultiply(uint8_t *pixel, int64_t num_pixels, int channels)
{
    for (; num_pixels > 0; --num_pixels, pixel += channels) {
        const int alpha = pixel[channels - 1];
        if (alpha == 0 || alpha == 255) continue;
        for (int channel = 0; channel < channels - 1; ++channel) {
            const int quotient = 255 * pixel[channel] / alpha;
            pixel[channel] = (uint8_t)(quotient > 255 ? 255 : quotient);
        }
    }
}

// Without the bytes that Pillow keeps beside three channels.
void copy_tight(const Pixels &from, int channels, uint8_t *to)
{
    for (int row = 0; row < from.height; ++row) {
        const uint8_t *at = from.at + row * from.pitch;
        if (from.pixel_bytes == channels) {
            std::memcpy(to, at, (int64_t)from.width * channels);
            to += (int64_t)from.width * channels;
            continue;
        }
        for (int col = 0; col < from.width; ++col, at += from.pixel_bytes)
            for (int channel = 0; channel < channels; ++channel) *to++ = at[channel];
    }
}

// ---------------------------------------------------------------------------------------------------- one image
struct Room {                            // of a job, in its scratch memory
    uint8_t *tight;                      // the source without gaps, premultiplied where there is alpha
    uint8_t *between;                    // after the first of two passes
    uint8_t *line;
    int32_t *words;
    int64_t bytes;
};

// The rows of the source that are read.
void rows_of(const ResizeJob &job, int *first, int *last)
{
    *first = 0;
    *last = job.height;
    if (job.down.first) span_of(job.down, first, last);
}

bool needs_tight(const ResizeJob &job)
{
    return has_alpha(job) || (job.pixel_bytes != job.channels && (job.down_first || !job.across.first));
}

Room room_of(const ResizeJob &job, unsigned char *scratch)
{
    int first, last;
    rows_of(job, &first, &last);
    const int64_t rows = last - first, row_bytes = (int64_t)job.width * job.channels;
    int64_t used = 0;
    const auto take = [&](int64_t bytes) {
        unsigned char *at = scratch ? scratch + used : nullptr;
        used += padded(bytes);
        return at;
    };
    Room room = {};
    room.tight = take(needs_tight(job) ? rows * row_bytes : 0);
    const bool twice = job.across.first && job.down.first;
    room.between = take(!twice ? 0 : job.down_first ? job.down.length * row_bytes : rows * job.across.length * job.channels);
    room.line = take(job.across.first ? 4 * padded((int64_t)job.width * job.pixel_bytes + 16 * job.pixel_bytes) : 0);
    room.words = (int32_t *)(void *)take(job.across.first ? (int64_t)job.across.length * pairs_of(job.across, job.channels) * 8 : 0);
    room.bytes = used;
    return room;
}

void pick_nearest(const ResizeJob &job)
{
    uint8_t *to = job.target;
    for (int row = 0; row < job.target_rows; ++row) {
        const uint8_t *from = job.source + job.rows[row] * job.source_pitch;
        for (int col = 0; col < job.target_cols; ++col)
            for (int channel = 0; channel < job.channels; ++channel) *to++ = from[(int64_t)job.cols[col] * job.pixel_bytes + channel];
    }
}

void resize(const ResizeJob *asked, unsigned char *scratch)
{
    const ResizeJob &job = *asked;
    if (job.rows) return pick_nearest(job);
    if (!job.across.first && !job.down.first)
        return copy_tight({job.source, job.source_pitch, job.height, job.width, job.pixel_bytes}, job.channels, job.target);
    const Room room = room_of(job, scratch);
    int first, last;
    rows_of(job, &first, &last);
    Pixels from = {job.source + first * job.source_pitch, job.source_pitch, last - first, job.width, job.pixel_bytes};
    if (needs_tight(job)) {
        if (has_alpha(job)) copy_premultiplied(from, job.channels, room.tight);
        else copy_tight(from, job.channels, room.tight);
        from = {room.tight, (int64_t)job.width * job.channels, last - first, job.width, job.channels};
    }
    const PackedWeights packed = {room.words, job.across.first ? pairs_of(job.across, job.channels) : 0};
    if (!job.down.first) {
        across(from, job.channels, job.across, packed, room.line, job.target);
    } else if (!job.across.first) {
        down(from, first, job.down, job.target);
    } else if (job.down_first) {
        down(from, first, job.down, room.between);
        const Pixels between = {room.between, (int64_t)job.width * job.channels, job.down.length, job.width, job.channels};
        across(between, job.channels, job.across, packed, room.line, job.target);
    } else {
        across(from, job.channels, job.across, packed, room.line, room.between);
        const Pixels between = {room.between, (int64_t)job.across.length * job.channels, last - first, job.across.length, job.channels};
        down(between, first, job.down, job.target);
    }
    if (has_alpha(job)) unpremultiply(job.target, (int64_t)job.target_rows * job.target_cols, job.channels);
}

int64_t scratch_bytes(const ResizeJob *job) { return room_of(*job, nullptr).bytes; }

} // namespace

#define JOIN(a, b) a##b
#define EXPORTED(set) JOIN(gpuseq_resize_, set)
extern "C" const ResizeEngine EXPORTED(SET);
const ResizeEngine EXPORTED(SET) = {scratch_bytes, resize};
