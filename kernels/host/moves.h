// Steps of a program that move pixels or look at those beside them, on one image of uint8: the arithmetic of
// kernels/program.cuh, row by row.
#pragma once
#include <cmath>
#include <cstring>

#include "planes.h"
#include "steps.h"

namespace {

struct Image {
    const uint8_t *from;                 // (H, W, C), C-contiguous
    uint8_t *to;                         // another of the same shape
    int height, width, channels;
    int pixels() const { return height * width; }
    bool has_alpha() const { return channels == 2 || channels == 4; }
    int colours() const { return channels - has_alpha(); }
};

inline int clamped(int position, int side) { return position < 0 ? 0 : position < side ? position : side - 1; }

void fill_pixel(const double *step, int channels, uint8_t *level)
{
    // More channels than a step has bytes for are filled with the first one.
    const unsigned fill = (unsigned)step[STEP_FILL];
    for (int channel = 0; channel < channels; ++channel) level[channel] = (uint8_t)(fill >> (channels <= 4 ? 8 * channel : 0));
}

// ------------------------------------------------------------------------------------------------ geometry
// C: the number of channels where the compiler is to know it, or 0.
template <int C> inline void copy_pixel(const uint8_t *from, uint8_t *to, int channels)
{
    for (int channel = 0; channel < (C ? C : channels); ++channel) to[channel] = from[channel];
}

// What a loop needs is copied first: a byte that is written might else be part of it, and it would be read anew for every pixel.
// Not inlined, so that the registers of a loop do not depend on what else there is: that made 20 % and came with other changes.
template <int C, class Find> [[gnu::noinline]] void move_nearest(const Image &image, const double *step, Find find)
{
    const int channels = C ? C : image.channels, height = image.height, width = image.width;
    const uint8_t *from = image.from;
    uint8_t fill[256], *to = image.to;
    fill_pixel(step, channels < 256 ? channels : 256, fill);
    for (int row = 0; row < height; ++row) {
        for (int col = 0; col < width; ++col, to += channels) {
            int from_row = row, from_col = col;
            find(from_row, from_col);
            // As unsigned numbers the negative ones are the largest: one comparison an axis.
            const bool is_inside = (unsigned)from_row < (unsigned)height && (unsigned)from_col < (unsigned)width;
            copy_pixel<C>(is_inside ? from + ((int64_t)from_row * width + from_col) * channels : fill, to, channels);
        }
    }
}

template <int C> void move(const Image &image, const double *step, const int32_t *lines)
{
    const int code = (int)step[0];
    if (code == FIXED) {
        // 16.16: the products leave 32 bits.
        const int64_t a = (int64_t)step[1], b = (int64_t)step[2], c = (int64_t)step[3];
        const int64_t d = (int64_t)step[4], e = (int64_t)step[5], f = (int64_t)step[6];
        move_nearest<C>(image, step, [=](int &row, int &col) {
            const int64_t at_col = c + col * a + row * b, at_row = f + col * d + row * e;
            col = (int)(at_col >> 16);
            row = (int)(at_row >> 16);
        });
    } else if (code == LINES) {
        const int32_t *cols = lines + (int)step[1], *rows = lines + (int)step[2];
        const int cols_apart = (int)step[3], rows_apart = (int)step[4];
        move_nearest<C>(image, step, [=](int &row, int &col) {
            const int from_col = cols[row * cols_apart + col];
            row = rows[col * rows_apart + row];
            col = from_col;
        });
    } else {
        const double a = step[1], b = step[2], c = step[3], d = step[4], e = step[5], f = step[6], g = step[7], h = step[8];
        const int width = image.width, height = image.height;
        move_nearest<C>(image, step, [=](int &row, int &col) {
            const double x = col + 0.5, y = row + 0.5, depth = g * x + h * y + 1.0;
            const double at_col = (a * x + b * y + c) / depth, at_row = (d * x + e * y + f) / depth;
            const bool is_inside = at_col >= 0.0 && at_col < width && at_row >= 0.0 && at_row < height;
            col = is_inside ? (int)at_col : -1;
            row = is_inside ? (int)at_row : -1;
        });
    }
}

// Pillow's MULDIV255: a product over 255, rounded, in shifts.
void premultiply(uint8_t *pixel, int channels)
{
    for (int channel = 0; channel < channels - 1; ++channel) {
        const int product = pixel[channel] * pixel[channels - 1] + 128;
        pixel[channel] = (uint8_t)(((product >> 8) + product) >> 8);
    }
}

void unpremultiply(uint8_t *pixel, int channels)
{
    const int alpha = pixel[channels - 1];
    // Pillow leaves these as they are: nothing is divided by 0.
    if (alpha == 0 || alpha == 255) return;
    for (int channel = 0; channel < channels - 1; ++channel) {
        const int quotient = 255 * pixel[channel] / alpha;
        pixel[channel] = (uint8_t)(quotient < 255 ? quotient : 255);
    }
}

template <int C> [[gnu::noinline]] void move_bilinear(const Image &image, const double *step, uint8_t *room)
{
    const int channels = C ? C : image.channels, width = image.width, height = image.height;
    const uint8_t *from = image.from;
    if (image.has_alpha()) {
        // The whole image once, and not four taps of every pixel.
        std::memcpy(room, from, (int64_t)image.pixels() * channels);
        for (int pixel = 0; pixel < image.pixels(); ++pixel) premultiply(room + (int64_t)pixel * channels, channels);
        from = room;
    }
    uint8_t fill[256], *to = image.to;
    fill_pixel(step, channels < 256 ? channels : 256, fill);
    // As in `move_nearest`.
    const double a = step[1], b = step[2], c = step[3], d = step[4], e = step[5], f = step[6], g = step[7], h = step[8];
    const bool has_alpha = image.has_alpha();
    // The depth of an affine map is 1, and dividing by that is exact: the divisions are left out for their time alone.
    const bool is_projective = g != 0.0 || h != 0.0;
    for (int row = 0; row < height; ++row) {
        const double y = row + 0.5;
        for (int col = 0; col < width; ++col, to += channels) {
            const double x = col + 0.5;
            double at_col = a * x + b * y + c, at_row = d * x + e * y + f;
            if (is_projective) {
                const double depth = g * x + h * y + 1.0;
                at_col /= depth;
                at_row /= depth;
            }
            if (at_col >= 0.0 && at_col < width && at_row >= 0.0 && at_row < height) {
                at_col -= 0.5;
                at_row -= 0.5;
                // The floor: neither lies below -0.5.
                const int left = at_col < 0.0 ? -1 : (int)at_col, upper = at_row < 0.0 ? -1 : (int)at_row;
                const double right_share = at_col - left, lower_share = at_row - upper;
                // Pillow tests the position and holds the taps at the border: nothing is blended with the fill.
                const uint8_t *upper_line = from + (int64_t)clamped(upper, height) * width * channels;
                const uint8_t *lower_line = from + (int64_t)clamped(upper + 1, height) * width * channels;
                const int left_at = clamped(left, width) * channels, right_at = clamped(left + 1, width) * channels;
                for (int channel = 0; channel < channels; ++channel) {
                    const double upper_left = upper_line[left_at + channel], upper_right = upper_line[right_at + channel];
                    const double lower_left = lower_line[left_at + channel], lower_right = lower_line[right_at + channel];
                    const double top = upper_left + (upper_right - upper_left) * right_share;
                    const double foot = lower_left + (lower_right - lower_left) * right_share;
                    to[channel] = (uint8_t)(int)(top + (foot - top) * lower_share);
                }
            } else {
                copy_pixel<C>(fill, to, channels);
            }
            if (has_alpha) unpremultiply(to, channels);
        }
    }
}

// ------------------------------------------------------------------------------------------------ neighbourhoods
void sharpen(const Image &image, float factor, int *sums)
{
    const int channels = image.channels, line = image.width * channels;
    // The outermost ring of pixels stays.
    std::memcpy(image.to, image.from, (int64_t)image.height * line);
    for (int row = 1; row < image.height - 1; ++row) {
        const uint8_t *at = image.from + (int64_t)row * line;
        uint8_t *to = image.to + (int64_t)row * line;
        for (int i = 0; i < line; ++i) sums[i] = at[i - line] + at[i] + at[i + line];
        for (int i = channels; i < line - channels; ++i) {
            // Pillow's SMOOTH: weights of 1, and 5 in the middle. Thirteenths, rounded: none lies halfway, so integers
            // are exact.
            const int total = sums[i - channels] + sums[i] + sums[i + channels] + 4 * at[i];
            const int smooth = (int)((unsigned)(2 * total + 13) / 26u);
            to[i] = blended(smooth, at[i], factor);
        }
        if (image.has_alpha())
            for (int i = channels - 1; i < line; i += channels) to[i] = at[i];
    }
}

// d c b | a b c d | c b a; once is enough, as a kernel that reaches farther than a side is refused when it is drawn.
inline int reflected(int position, int side)
{
    position = position < 0 ? -position : position;
    return position < side ? position : 2 * (side - 1) - position;
}

void blur(const Image &image, const double *step, const double *weights, double *between)
{
    const int channels = image.channels, line = image.width * channels;
    const int kernel_width = (int)step[1], kernel_height = (int)step[2];
    const double *col_weights = weights + (int64_t)step[3], *row_weights = weights + (int64_t)step[4];
    for (int row = 0; row < image.height; ++row) {
        const uint8_t *from = image.from + (int64_t)row * line;
        double *to = between + (int64_t)row * line;
        for (int i = 0; i < line; ++i) to[i] = 0.0;
        for (int tap = 0; tap < kernel_width; ++tap) {
            for (int col = 0; col < image.width; ++col) {
                const uint8_t *at = from + reflected(col + tap - kernel_width / 2, image.width) * channels;
                for (int channel = 0; channel < channels; ++channel) to[col * channels + channel] += col_weights[tap] * at[channel];
            }
        }
    }
    // The row behind the image of rows; `scratch_bytes` counts it.
    double *total = between + (int64_t)image.height * line;
    for (int row = 0; row < image.height; ++row) {
        for (int i = 0; i < line; ++i) total[i] = 0.0;
        for (int tap = 0; tap < kernel_height; ++tap) {
            const double *from = between + (int64_t)reflected(row + tap - kernel_height / 2, image.height) * line;
            for (int i = 0; i < line; ++i) total[i] += row_weights[tap] * from[i];
        }
        uint8_t *to = image.to + (int64_t)row * line;
        for (int i = 0; i < line; ++i) {
            // Half to even, as torchvision's round.
            const double level = std::nearbyint(total[i]);
            to[i] = level < 0.0 ? 0 : level > 255.0 ? 255 : (uint8_t)(int)level;
        }
    }
}

} // namespace
