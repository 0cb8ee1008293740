// Random erasing on one finished image: rectangles of a constant, or of normal numbers that depend on a key and a place alone.
#pragma once
#include "store.h"

namespace {

constexpr int ERASE_COLUMNS = 9;         // top, left, height, width, then four values; the last: 1 for noise of the key in value 0

// Normal numbers [first, first + count) of a key: Philox4x32-10, of which each word gives two numbers, its low half first.
void normal_numbers(double key_number, uint32_t first, int count, const float *quantiles, float *to)
{
    // Blocks at a time. The ten rounds of one follow from each other; eight independent blocks fill a vector register.
    constexpr int LANES = 8;
    const uint64_t key = (uint64_t)key_number;
    for (uint32_t block = first / 8; block * 8 < first + count; block += LANES) {
        uint32_t words[4][LANES] = {};
        // The counter is the number of the block and nothing else, so a row's numbers do not depend on what was made before it.
        for (int lane = 0; lane < LANES; ++lane) words[0][lane] = block + lane;
        uint32_t low_key = (uint32_t)key, high_key = (uint32_t)(key >> 32);
        for (int round = 0; round < 10; ++round) {
            for (int lane = 0; lane < LANES; ++lane) {
                const uint64_t one = (uint64_t)0xD2511F53u * words[0][lane], other = (uint64_t)0xCD9E8D57u * words[2][lane];
                // In this order each word is read before it is written to.
                words[0][lane] = (uint32_t)(other >> 32) ^ words[1][lane] ^ low_key;
                words[1][lane] = (uint32_t)other;
                words[2][lane] = (uint32_t)(one >> 32) ^ words[3][lane] ^ high_key;
                words[3][lane] = (uint32_t)one;
            }
            low_key += 0x9E3779B9u;
            high_key += 0xBB67AE85u;
        }
        for (int number = 0; number < 8 * LANES; ++number) {
            // A row begins and ends anywhere in a block: what belongs to its neighbours is made and not stored.
            const int64_t at = (int64_t)block * 8 + number - first;
            if (at < 0 || at >= count) continue;
            const uint32_t word = words[number % 8 / 2][number / 8];
            to[at] = quantiles[number % 2 ? word >> 16 : word & 0xffffu];
        }
    }
}

// `line` has room for a row's values.
template <int KIND> void erase_as(const Job &job, const double *erase, const float *quantiles, float *line)
{
    typedef typename Out<KIND>::type To;
    typedef std::conditional_t<KIND == TO_FLOAT64, double, float> Value;
    const int top = (int)erase[0], left = (int)erase[1], rows = (int)erase[2], cols = (int)erase[3], channels = job.channels;
    const bool is_noise = erase[8] != 0.0;
    // Planes of channels last are one plane of wider rows.
    const int planes = job.out_channels_last ? 1 : channels, values = job.out_channels_last ? channels : 1, width = cols * values;
    To *const corner = (To *)job.out + ((int64_t)top * job.width + left) * values;
    const int64_t pitch = (int64_t)job.width * values, plane_size = pitch * job.height;
    for (int row = 0; row < rows; ++row) {
        if (is_noise) normal_numbers(erase[4], (uint32_t)(row * cols * channels), cols * channels, quantiles, line);
        // Noise is numbered channels last whatever the batch's order, so that both orders hold the same image.
        for (int plane = 0; plane < planes; ++plane) {
            To *const first = corner + plane * plane_size, *const to = first + row * pitch;
            if (is_noise) {
                for (int at = 0; at < width; ++at) to[at] = Out<KIND>::of((Value)line[at * planes + plane]);
            } else if (row) {
                std::memcpy(to, first, width * sizeof(To));         // cast once, in the first row
            } else {
                // A step holds four values; with more channels the first of them is for all.
                for (int at = 0; at < width; ++at)
                    to[at] = Out<KIND>::of((Value)erase[4 + (channels <= 4 ? at % values + plane : 0)]);
            }
        }
    }
}

// Levels as scaled floats, channels last, but for a rectangle of a constant. Each row that crosses it is put together in
// `line`, which has room for a row's values, so that no place of the batch is written twice.
void scale_around(const Job &job, const uint8_t *levels, const double *erase, float *line)
{
    const int top = (int)erase[0], rows = (int)erase[2], channels = job.channels, values = job.width * channels;
    const int first = (int)erase[1] * channels, last = first + (int)erase[3] * channels, below = top + rows;
    const float by = (float)job.rescale;
    float *const out = (float *)job.out;
    scale_bytes(levels, (int64_t)top * values, by, out, job.streams);
    for (int at = first; at < last; ++at) line[at] = (float)erase[4 + (channels <= 4 ? (at - first) % channels : 0)];
    for (int row = top; row < below; ++row) {
        const uint8_t *from = levels + (int64_t)row * values;
        scale_bytes(from, first, by, line, false);
        scale_bytes(from + last, values - last, by, line + last, false);
        cast_row<TO_FLOAT32>(line, values, out + (int64_t)row * values, job.streams);
    }
    scale_bytes(levels + (int64_t)below * values, (int64_t)(job.height - below) * values, by, out + (int64_t)below * values, job.streams);
}

// What one erasing step writes; `job.out` is the image.
void erase(const Job &job, const double *step, const float *quantiles, float *line)
{
    switch (job.out_kind) {              // once a step and not once a value: the loops within are compiled for one type each
    case TO_FLOAT32: return erase_as<TO_FLOAT32>(job, step, quantiles, line);
    case TO_FLOAT64: return erase_as<TO_FLOAT64>(job, step, quantiles, line);
    case TO_FLOAT16: return erase_as<TO_FLOAT16>(job, step, quantiles, line);
    case TO_BFLOAT16: return erase_as<TO_BFLOAT16>(job, step, quantiles, line);
    default: return erase_as<TO_UINT8>(job, step, quantiles, line);
    }
}

int64_t bytes_of(int out_kind)           // of a value
{
    return out_kind == TO_FLOAT64 ? 8 : out_kind == TO_FLOAT32 ? 4 : out_kind == TO_UINT8 ? 1 : 2;
}

} // namespace
