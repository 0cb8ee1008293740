// Colours of uint8 pixels: channels are taken apart into short planes, which steps of single pixels change one after another
// while they lie in the first-level cache. The arithmetic is Pillow's, and torchvision's for hue; every product and sum is
// rounded by itself.
#pragma once
#include "vectors.h"

namespace {

constexpr int TABLE_BYTES = 768;
constexpr int BLOCK = 256;               // pixels of a plane: a multiple of 64

struct Planes {
    alignas(64) uint8_t level[3][BLOCK];
};

inline uint8_t truncated(float level) { return (uint8_t)(int)(level < 0.0f ? 0.0f : level > 255.0f ? 255.0f : level); }
inline uint8_t blended(int low, int high, float factor) { return truncated(factor * (float)(high - low) + (float)low); }

// ------------------------------------------------------------------------------------------------ RGB to planes and back
// Which byte of each of three vectors goes where; 255: none of this vector.
template <int SIZE> struct Moves {
    uint8_t apart[3][3][SIZE];           // (channel, vector, pixel)
    uint8_t together[3][3][SIZE];        // (vector, channel, byte)
};

template <int SIZE> constexpr Moves<SIZE> moves_of()
{
    Moves<SIZE> moves = {};
    for (int part = 0; part < 3; ++part)
        for (int channel = 0; channel < 3; ++channel)
            for (int i = 0; i < SIZE; ++i) {
                const int byte = 3 * i + channel, out = part * SIZE + i;
                moves.apart[channel][part][i] = byte / SIZE == part ? byte % SIZE : 255;
                moves.together[part][channel][i] = out % 3 == channel ? out / 3 : 255;
            }
    return moves;
}

#if defined(__AVX512VBMI__) && defined(__AVX512BW__)
constexpr int GROUP = 64;
typedef __m512i Bytes;
inline Bytes load_bytes(const uint8_t *from) { return _mm512_loadu_si512(from); }
inline void store_bytes(uint8_t *to, Bytes bytes) { _mm512_storeu_si512(to, bytes); }
inline Bytes gather_bytes(Bytes a, Bytes b, Bytes c, const uint8_t (&from)[3][64])
{
    const Bytes none = _mm512_set1_epi8(-1), first = load_bytes(from[0]), second = load_bytes(from[1]), third = load_bytes(from[2]);
    const Bytes one = _mm512_maskz_permutexvar_epi8(_mm512_cmpneq_epi8_mask(first, none), first, a);
    const Bytes two = _mm512_mask_permutexvar_epi8(one, _mm512_cmpneq_epi8_mask(second, none), second, b);
    return _mm512_mask_permutexvar_epi8(two, _mm512_cmpneq_epi8_mask(third, none), third, c);
}
#elif defined(__AVX2__)
constexpr int GROUP = 16;
typedef __m128i Bytes;
inline Bytes load_bytes(const uint8_t *from) { return _mm_loadu_si128((const __m128i *)(const void *)from); }
inline void store_bytes(uint8_t *to, Bytes bytes) { _mm_storeu_si128((__m128i *)(void *)to, bytes); }
inline Bytes gather_bytes(Bytes a, Bytes b, Bytes c, const uint8_t (&from)[3][16])
{
    const Bytes one = _mm_shuffle_epi8(a, load_bytes(from[0])), two = _mm_shuffle_epi8(b, load_bytes(from[1]));
    return _mm_or_si128(_mm_or_si128(one, two), _mm_shuffle_epi8(c, load_bytes(from[2])));
}
#else
constexpr int GROUP = 0;
#endif

void take_rgb_apart(const uint8_t *__restrict__ from, int count, Planes &planes)
{
    int pixel = 0;
#if defined(__AVX2__)
    static constexpr Moves<GROUP> moves = moves_of<GROUP>();
    for (; pixel + GROUP <= count; pixel += GROUP) {
        const uint8_t *at = from + 3 * pixel;
        const Bytes a = load_bytes(at), b = load_bytes(at + GROUP), c = load_bytes(at + 2 * GROUP);
        for (int channel = 0; channel < 3; ++channel) store_bytes(planes.level[channel] + pixel, gather_bytes(a, b, c, moves.apart[channel]));
    }
#endif
    for (; pixel < count; ++pixel)
        for (int channel = 0; channel < 3; ++channel) planes.level[channel][pixel] = from[3 * pixel + channel];
}

void put_rgb_together(const Planes &planes, int count, uint8_t *__restrict__ to)
{
    int pixel = 0;
#if defined(__AVX2__)
    static constexpr Moves<GROUP> moves = moves_of<GROUP>();
    for (; pixel + GROUP <= count; pixel += GROUP) {
        const Bytes red = load_bytes(planes.level[0] + pixel), green = load_bytes(planes.level[1] + pixel);
        const Bytes blue = load_bytes(planes.level[2] + pixel);
        for (int part = 0; part < 3; ++part) store_bytes(to + 3 * pixel + part * GROUP, gather_bytes(red, green, blue, moves.together[part]));
    }
#endif
    for (; pixel < count; ++pixel)
        for (int channel = 0; channel < 3; ++channel) to[3 * pixel + channel] = planes.level[channel][pixel];
}

// ------------------------------------------------------------------------------------------------ tables
// Each of `count` levels through a table of 256; `count` is a multiple of 64.
void look_up(uint8_t *plane, int count, const uint8_t *levels)
{
#if defined(__AVX512VBMI__) && defined(__AVX512BW__)
    const Bytes a = load_bytes(levels), b = load_bytes(levels + 64), c = load_bytes(levels + 128), d = load_bytes(levels + 192);
    for (int i = 0; i < count; i += 64) {
        const Bytes at = load_bytes(plane + i);
        const Bytes dark = _mm512_permutex2var_epi8(a, at, b), bright = _mm512_permutex2var_epi8(c, at, d);
        // Such a permutation looks at seven bits of an index, and so finds one of 128 levels; the eighth bit chooses
        // the half.
        store_bytes(plane + i, _mm512_mask_blend_epi8(_mm512_movepi8_mask(at), dark, bright));
    }
#elif defined(__AVX2__)
    // Sixteen tables of sixteen. A shuffle gives 0 for a negative index and looks at four bits of any other, so that a level
    // finds its own sixteen and all below it in its half: the differences of the tables cancel those.
    __m256i steps[16];
    const Bytes zero = _mm_setzero_si128();
    for (int part = 0; part < 16; ++part) {
        const Bytes before = part % 8 ? load_bytes(levels + 16 * (part - 1)) : zero;
        steps[part] = _mm256_broadcastsi128_si256(_mm_xor_si128(load_bytes(levels + 16 * part), before));
    }
    const __m256i sixteen = _mm256_set1_epi8(16);
    for (int i = 0; i < count; i += 32) {
        __m256i *const at = (__m256i *)(void *)(plane + i);
        __m256i dark = _mm256_loadu_si256(at), bright = _mm256_xor_si256(dark, _mm256_set1_epi8(-128));
        __m256i found = _mm256_xor_si256(_mm256_shuffle_epi8(steps[0], dark), _mm256_shuffle_epi8(steps[8], bright));
        for (int part = 1; part < 8; ++part) {
            dark = _mm256_subs_epi8(dark, sixteen);          // it stays negative: -128 is the end
            bright = _mm256_subs_epi8(bright, sixteen);
            found = _mm256_xor_si256(found, _mm256_shuffle_epi8(steps[part], dark));
            found = _mm256_xor_si256(found, _mm256_shuffle_epi8(steps[8 + part], bright));
        }
        _mm256_storeu_si256(at, found);
    }
#else
    for (int i = 0; i < count; ++i) plane[i] = levels[plane[i]];
#endif
}

// ------------------------------------------------------------------------------------------------ colours
// Luminance is Pillow's: 0.299, 0.587 and 0.114 in 65536ths, rounded.
#if defined(__SSE2__)
// As many levels at a time as a vector holds. Bytes become numbers of 16 and of 32 bits by interleaving, and come back by
// packing: both work within 16 bytes, so that the order is the old one in the end.
#if defined(__AVX512BW__)
typedef __m512i Whole;
typedef __m512 Single;
#define OP(name) _mm512_##name
#elif defined(__AVX2__)
typedef __m256i Whole;
typedef __m256 Single;
#define OP(name) _mm256_##name
#else
typedef __m128i Whole;
typedef __m128 Single;
#define OP(name) _mm_##name
#endif

// The lower and the upper halves of the 16-byte parts of two vectors, interleaved: bytes, or numbers of 16 bits.
struct Halves {
    Whole part[2];
};
inline Halves mixed_bytes(Whole a, Whole b) { return {{OP(unpacklo_epi8)(a, b), OP(unpackhi_epi8)(a, b)}}; }
inline Halves mixed_shorts(Whole a, Whole b) { return {{OP(unpacklo_epi16)(a, b), OP(unpackhi_epi16)(a, b)}}; }

inline Halves widened(const uint8_t *levels) { return mixed_bytes(load_as<Whole>(levels), OP(set1_epi16)(0)); }

// All in numbers of 16 bits.
inline Whole luminance(Whole red, Whole green, Whole blue)
{
    // 38470 is no signed number of 16 bits: one green less, and one added in the end. A half is twice 16384.
    const Whole of_two = OP(set1_epi32)((int)((uint32_t)(38470 - 65536) << 16 | 19595)), of_one = OP(set1_epi32)(16384 << 16 | 7471);
    const Halves two = mixed_shorts(red, green), one = mixed_shorts(blue, OP(set1_epi16)(2));
    Whole sums[2];
    for (int half = 0; half < 2; ++half)
        sums[half] = OP(srai_epi32)(OP(add_epi32)(OP(madd_epi16)(two.part[half], of_two), OP(madd_epi16)(one.part[half], of_one)), 16);
    return OP(add_epi16)(green, OP(packs_epi32)(sums[0], sums[1]));
}

int light_of(const Planes &planes)       // what is black adds nothing
{
    Whole sum = OP(set1_epi16)(0);
    for (int i = 0; i < BLOCK; i += (int)sizeof(Whole)) {
        const Halves red = widened(planes.level[0] + i), green = widened(planes.level[1] + i), blue = widened(planes.level[2] + i);
        for (int half = 0; half < 2; ++half) {
            const Whole grey = luminance(red.part[half], green.part[half], blue.part[half]);
            sum = OP(add_epi32)(sum, OP(madd_epi16)(grey, OP(set1_epi16)(1)));
        }
    }
    int32_t lanes[sizeof sum / 4], total = 0;
    std::memcpy(lanes, &sum, sizeof sum);
    for (const int32_t lane : lanes) total += lane;
    return total;
}

void recolour(Planes &planes, float factor)
{
    // A larger factor leads to the same levels, 0 and 255, and its products are no numbers of 32 bits.
    constexpr float MOST = 4194304.0f;
    factor = factor > MOST ? MOST : factor < -MOST ? -MOST : factor;
    // Interleaved with zeros below them, numbers are 65536 times what they were: the factor makes up for it, without rounding.
    const Single share = OP(set1_ps)(factor * (float)(1.0 / 65536.0));
    const Whole zero = OP(set1_epi16)(0);
    for (int i = 0; i < BLOCK; i += (int)sizeof(Whole)) {
        const Halves colours[3] = {widened(planes.level[0] + i), widened(planes.level[1] + i), widened(planes.level[2] + i)};
        Whole levels[3][2];
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const Whole grey = luminance(colours[0].part[half], colours[1].part[half], colours[2].part[half]);
            const Halves wide = mixed_shorts(grey, zero);
            const Single from[2] = {OP(cvtepi32_ps)(wide.part[0]), OP(cvtepi32_ps)(wide.part[1])};
#pragma GCC unroll 3
            for (int channel = 0; channel < 3; ++channel) {
                const Halves away = mixed_shorts(zero, OP(sub_epi16)(colours[channel].part[half], grey));
                Whole blended[2];
#pragma GCC unroll 2
                for (int part = 0; part < 2; ++part)
                    blended[part] = OP(cvttps_epi32)(OP(add_ps)(OP(mul_ps)(OP(cvtepi32_ps)(away.part[part]), share), from[part]));
                levels[channel][half] = OP(packs_epi32)(blended[0], blended[1]);
            }
        }
        // Packing holds to 0 and 255 what lies beyond them; truncating first leads to the same.
        for (int channel = 0; channel < 3; ++channel) {
            const Whole packed = OP(packus_epi16)(levels[channel][0], levels[channel][1]);
            std::memcpy(planes.level[channel] + i, &packed, sizeof packed);
        }
    }
}
#undef OP
#else
inline int luminance(int red, int green, int blue) { return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16; }

int light_of(const Planes &planes)       // what is black adds nothing
{
    int sum = 0;
    for (int i = 0; i < BLOCK; ++i) sum += luminance(planes.level[0][i], planes.level[1][i], planes.level[2][i]);
    return sum;
}

void recolour(Planes &planes, float factor)
{
    for (int i = 0; i < BLOCK; ++i) {
        const int grey = luminance(planes.level[0][i], planes.level[1][i], planes.level[2][i]);
        for (int channel = 0; channel < 3; ++channel) planes.level[channel][i] = blended(grey, planes.level[channel][i], factor);
    }
}
#endif

// Several pixels at a time, by GCC's and Clang's vector extensions: the compilers make no vectors of so many choices.
#if defined(__AVX512BW__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t Levels __attribute__((vector_size(LANES)));

// GCC 12 takes bytes to numbers of 32 bits and back one by one where the extensions ask for it, so these are spelled out.
inline Floats floats_of(const uint8_t *levels)
{
#if defined(__AVX512BW__)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)levels)));
#elif defined(__AVX2__)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)levels)));
#elif defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128(), pairs = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(const void *)levels), zero);
    const __m128 halves[2] = {_mm_cvtepi32_ps(_mm_unpacklo_epi16(pairs, zero)), _mm_cvtepi32_ps(_mm_unpackhi_epi16(pairs, zero))};
    return load_as<Floats>(halves);
#else
    return __builtin_convertvector(__builtin_convertvector(load_as<Levels>(levels), Ints), Floats);
#endif
}
#if defined(__SSE2__) && !defined(__AVX2__)      // where a choice is no instruction, and the compilers take lanes one by one
inline Floats above(Floats value, float least)
{
    __m128 halves[2];
    std::memcpy(halves, &value, sizeof value);
    for (__m128 &half : halves) half = _mm_max_ps(half, _mm_set1_ps(least));
    return load_as<Floats>(halves);
}
inline Floats below(Floats value, float most)
{
    __m128 halves[2];
    std::memcpy(halves, &value, sizeof value);
    for (__m128 &half : halves) half = _mm_min_ps(half, _mm_set1_ps(most));
    return load_as<Floats>(halves);
}
#else
inline Floats above(Floats value, float least)
{
    const Floats end = Floats{} + least;
    return value < end ? end : value;
}
inline Floats below(Floats value, float most)
{
    const Floats end = Floats{} + most;
    return value > end ? end : value;
}
#endif

// Writes numbers of 0 to below 256, truncated.
inline void put_levels(uint8_t *to, Floats value)
{
    const Ints whole = __builtin_convertvector(value, Ints);
#if defined(__AVX512BW__)
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8((__m512i)whole));
#elif defined(__AVX2__)
    const __m256i wide = (__m256i)whole;
    const __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64((__m128i *)(void *)to, _mm_packus_epi16(half, half));
#elif defined(__SSE2__)
    __m128i halves[2];
    std::memcpy(halves, &whole, sizeof whole);
    const __m128i half = _mm_packs_epi32(halves[0], halves[1]);
    _mm_storel_epi64((__m128i *)(void *)to, _mm_packus_epi16(half, half));
#else
    const Levels levels = __builtin_convertvector(whole, Levels);
    std::memcpy(to, &levels, sizeof levels);
#endif
}

void rotate_hue(Planes &planes, float shift)
{
    const float per_level = (float)(1.0 / 255.0);
    const Floats zero = {}, one = zero + 1.0f;
    const auto within = [](Floats value) { return below(above(value, 0.0f), 1.0f); };
    for (int i = 0; i < BLOCK; i += LANES) {
        const Floats red = floats_of(planes.level[0] + i) * per_level, green = floats_of(planes.level[1] + i) * per_level;
        const Floats blue = floats_of(planes.level[2] + i) * per_level;
        Floats most = red > green ? red : green, least = red < green ? red : green;
        most = most > blue ? most : blue;
        least = least < blue ? least : blue;
        // Grey pixels, whose hue is of no use, divide by 1 and not by 0.
        const Floats spread = most - least, divisor = most == least ? one : spread;
        const Floats saturation = spread / (most == least ? one : most);
        const Floats from_red = (most - red) / divisor, from_green = (most - green) / divisor, from_blue = (most - blue) / divisor;
        const Floats if_red = from_blue - from_green, if_green = from_red + 2.0f - from_blue, if_blue = from_green + 4.0f - from_red;
        const Floats sixths = most == red ? if_red : most == green ? if_green : if_blue;
        Floats hue = sixths * (float)(1.0 / 6.0) + 1.0f;
        hue = (hue >= one ? hue - 1.0f : hue) + shift;
        hue = hue >= one ? hue - 1.0f : hue < zero ? hue + 1.0f : hue;
        const Floats six = hue * 6.0f;
        Ints sector = __builtin_convertvector(six, Ints);        // neither is negative
        const Floats part = saturation * (six - __builtin_convertvector(sector, Floats)), pale = 1.0f - saturation;
        const Floats sinking = within((1.0f - part) * most), rising = within((part + pale) * most), low = within(pale * most);
        // A hue just below 0, plus 1, is 1 in float: the first sector again.
        sector = sector == 6 ? sector - 6 : sector;
        const Ints at_0 = sector == 0, at_1 = sector == 1, at_2 = sector == 2, at_3 = sector == 3, at_4 = sector == 4, at_5 = sector == 5;
        // 255.999 is torchvision's: 1.0 becomes 255, and the shares before it their own level.
        put_levels(planes.level[0] + i, 255.999f * ((at_0 | at_5) ? most : at_1 ? sinking : at_4 ? rising : low));
        put_levels(planes.level[1] + i, 255.999f * ((at_1 | at_2) ? most : at_0 ? rising : at_3 ? sinking : low));
        put_levels(planes.level[2] + i, 255.999f * ((at_3 | at_4) ? most : at_2 ? rising : at_5 ? sinking : low));
    }
}

} // namespace
