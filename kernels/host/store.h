// A finished row of values into the batch: its dtype and its axis order.
#pragma once
#include "job.h"
#include "vectors.h"

#include <type_traits>

namespace {

enum OutKind { TO_FLOAT32, TO_FLOAT64, TO_FLOAT16, TO_BFLOAT16, TO_UINT8 };      // the OUT_* of common.cuh

inline uint32_t bits_of(float value) { return load_as<uint32_t>(&value); }

// Round to nearest even. Numbers too small for a normal half are brought, by adding 0.5, to where the last bit of a float is
// the last of a subnormal half.
inline uint16_t half_bits(float value)
{
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
    const uint32_t subnormal = bits_of(load_as<float>(&magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u | (magnitude >> 13 & 0x3ffu) : 0x7c00u;
    const uint32_t half = magnitude >= 0x477ff000u ? special : magnitude < 0x38800000u ? subnormal : normal;
    return (uint16_t)(sign | half);
}

inline uint16_t bfloat_bits(float value)
{
    const uint32_t bits = bits_of(value);
    const uint32_t quiet = bits >> 16 | 0x40u, rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

template <int KIND> struct Out;
template <> struct Out<TO_FLOAT32> {
    typedef float type;
    template <class T> static type of(T value) { return (float)value; }
};
template <> struct Out<TO_FLOAT64> {
    typedef double type;
    template <class T> static type of(T value) { return (double)value; }
};
template <> struct Out<TO_FLOAT16> {
    typedef uint16_t type;
    template <class T> static type of(T value) { return half_bits((float)value); }
};
template <> struct Out<TO_BFLOAT16> {
    typedef uint16_t type;
    template <class T> static type of(T value) { return bfloat_bits((float)value); }
};
template <> struct Out<TO_UINT8> {
    typedef uint8_t type;
    template <class T> static type of(T value) { return (uint8_t)(int)(value > 0 ? value < 255 ? value : (T)255 : (T)0); }
};

#if defined(__AVX__)
constexpr bool CAN_STREAM = true;
#else
constexpr bool CAN_STREAM = false;
#endif

// With `streams` past the caches, where the batch would only push the sources out of them.
template <int KIND, class T>
void cast_row(const T *__restrict__ from, int64_t num_values, typename Out<KIND>::type *__restrict__ to, [[maybe_unused]] bool streams)
{
    int64_t at = 0;
#if defined(__AVX__)
    if constexpr (KIND == TO_FLOAT32 && sizeof(T) == 4) {
        if (streams) {
            for (; at < num_values && ((uintptr_t)(to + at) & 31); ++at) to[at] = from[at];
            for (; at + 8 <= num_values; at += 8) _mm256_stream_ps(to + at, _mm256_loadu_ps(from + at));
        }
    }
#endif
#if defined(__F16C__)
    if (KIND == TO_FLOAT16 && sizeof(T) == 4) {
        for (; at + 8 <= num_values; at += 8)
            _mm_storeu_si128((__m128i *)(void *)(to + at), _mm256_cvtps_ph(_mm256_loadu_ps((const float *)from + at), 0));
    }
#endif
    for (; at < num_values; ++at) to[at] = Out<KIND>::of(from[at]);
}

// Whether a finished value is its level as a float, scaled and nothing else.
inline bool only_scales(const Job &job)
{
    return job.out_kind == TO_FLOAT32 && !job.is_double && !job.preprocess && !job.mean_c && !job.divisor_c && !job.samplewise_center
        && !job.samplewise_std;
}

// Bytes as floats, scaled, in one pass.
inline void scale_bytes(const uint8_t *__restrict__ from, int64_t num_values, float by, float *__restrict__ to, [[maybe_unused]] bool streams)
{
    int64_t at = 0;
#if defined(__AVX2__)
    const auto scaled = [&](int64_t place) {
        const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(from + place));
        return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_set1_ps(by));
    };
    if (streams) {
        for (; at < num_values && ((uintptr_t)(to + at) & 31); ++at) to[at] = (float)from[at] * by;
        for (; at + 8 <= num_values; at += 8) _mm256_stream_ps(to + at, scaled(at));
    }
    for (; at + 8 <= num_values; at += 8) _mm256_storeu_ps(to + at, scaled(at));
#endif
    for (; at < num_values; ++at) to[at] = (float)from[at] * by;
}

// Channel `channel` of a row alone.
template <class T> void extract(const T *__restrict__ row, int num_cols, int channels, int channel, T *__restrict__ plane)
{
    row += channel;
    for (int col = 0; col < num_cols; ++col) plane[col] = row[(int64_t)col * channels];
}

// The three planes of a row of RGB, four pixels at a time.
inline void extract_rgb(const float *__restrict__ row, int num_cols, float *const planes[3])
{
    int col = 0;
    for (; col + 4 <= num_cols; col += 4, row += 12) {
        const F4 a = load_as<F4>(row), b = load_as<F4>(row + 4), c = load_as<F4>(row + 8);       // rgbr gbrg brgb
        const F4 red = SHUFFLE(SHUFFLE(a, b, 0, 3, 6, 6), c, 0, 1, 2, 5);
        const F4 green = SHUFFLE(SHUFFLE(a, b, 1, 4, 7, 7), c, 0, 1, 2, 6);
        const F4 blue = SHUFFLE(SHUFFLE(a, b, 2, 5, 5, 5), c, 0, 1, 4, 7);
        std::memcpy(planes[0] + col, &red, sizeof red);
        std::memcpy(planes[1] + col, &green, sizeof green);
        std::memcpy(planes[2] + col, &blue, sizeof blue);
    }
    for (; col < num_cols; ++col, row += 3)
        for (int channel = 0; channel < 3; ++channel) planes[channel][col] = row[channel];
}

// Columns from `first_col` on of row `row` of a sample. `planes` has room for the row, SPARE values more a channel.
template <int KIND, class T>
void put_row(const Job &job, int64_t sample, int row, int first_col, int num_cols, const T *values, T *planes)
{
    typedef typename Out<KIND>::type To;
    const int channels = job.channels;
    To *batch = (To *)job.out + sample * job.height * job.width * channels;
    if (job.out_channels_last || channels == 1) {
        cast_row<KIND>(values, (int64_t)num_cols * channels, batch + ((int64_t)row * job.width + first_col) * channels,
                       job.streams);
        return;
    }
    To *line = batch + (int64_t)row * job.width + first_col;
    const int64_t plane = (int64_t)job.height * job.width;
    if constexpr (sizeof(T) == 4) {
        if (channels == 3) {
            T *const room[3] = {planes, planes + num_cols, planes + 2 * num_cols};
            extract_rgb(values, num_cols, room);
            for (int channel = 0; channel < 3; ++channel) cast_row<KIND>(room[channel], num_cols, line + channel * plane, job.streams);
            return;
        }
    }
    for (int channel = 0; channel < channels; ++channel) {
        extract(values, num_cols, channels, channel, planes);
        cast_row<KIND>(planes, num_cols, line + channel * plane, job.streams);
    }
}

template <class T>
void put(const Job &job, int64_t sample, int row, int first_col, int num_cols, const T *values, T *planes)
{
    switch (job.out_kind) {
    case TO_FLOAT32: return put_row<TO_FLOAT32>(job, sample, row, first_col, num_cols, values, planes);
    case TO_FLOAT64: return put_row<TO_FLOAT64>(job, sample, row, first_col, num_cols, values, planes);
    case TO_FLOAT16: return put_row<TO_FLOAT16>(job, sample, row, first_col, num_cols, values, planes);
    case TO_BFLOAT16: return put_row<TO_BFLOAT16>(job, sample, row, first_col, num_cols, values, planes);
    default: return put_row<TO_UINT8>(job, sample, row, first_col, num_cols, values, planes);
    }
}

} // namespace
