// The modern augmentations on one image of uint8, step after step, as Pillow does them: the arithmetic of
// kernels/program.cuh over whole images. Every product and sum is rounded by itself.
#include "program.h"

#include <cmath>
#include <cstring>

namespace {

constexpr int STEP_COLUMNS = 10, STEP_FILL = 9, TABLE_BYTES = 768;
constexpr int BLOCK = 128;               // pixels whose channels are taken apart at a time

enum Code { FIXED = 1, LINES, PROJECTIVE, TABLE, COLOR, GREY, HUE, PERMUTE, BILINEAR, SHARPNESS, BLUR, CONTRAST, AUTOCONTRAST, EQUALIZE };

// Tables are not done at once: `levels` goes along with the image until a step needs the finished pixels, and steps on
// single pixels look them up while they read. So a table costs no pass of its own there.
struct Image {
    const uint8_t *from;                 // (H, W, C), C-contiguous
    uint8_t *to;                         // another of the same shape
    const uint8_t *levels;               // (3, 256): tables that the colours are still to go through, or null
    int height, width, channels;
    int pixels() const { return height * width; }
    int colours() const { return channels == 4 ? 3 : channels; }
    bool has_alpha() const { return channels == 2 || channels == 4; }
};

inline uint8_t truncated(float level) { return (uint8_t)(int)(level < 0.0f ? 0.0f : level > 255.0f ? 255.0f : level); }
inline uint8_t blended(int low, int high, float factor) { return truncated(factor * (float)(high - low) + (float)low); }
inline int clamped(int position, int side) { return position < 0 ? 0 : position < side ? position : side - 1; }

void fill_pixel(const double *step, int channels, uint8_t *level)
{
    const unsigned fill = (unsigned)step[STEP_FILL];
    // More channels than a step has bytes for are filled with the first one.
    for (int channel = 0; channel < channels; ++channel) level[channel] = (uint8_t)(fill >> (channels <= 4 ? 8 * channel : 0));
}

// Channels of some pixels taken apart, so that what follows is done to several pixels at once.
struct Planes {
    int level[3][BLOCK];
};

// The colours of the pixels from `start` on, as many as there are up to BLOCK; the rest is black.
int take_apart(const Image &image, int start, Planes &planes)
{
    const int channels = image.channels, count = image.pixels() - start < BLOCK ? image.pixels() - start : BLOCK;
    const uint8_t *from = image.from + (int64_t)start * channels;
    if (image.levels) {
        for (int pixel = 0; pixel < count; ++pixel)
            for (int channel = 0; channel < 3; ++channel)
                planes.level[channel][pixel] = image.levels[256 * channel + from[pixel * channels + channel]];
    } else {
        for (int pixel = 0; pixel < count; ++pixel)
            for (int channel = 0; channel < 3; ++channel) planes.level[channel][pixel] = from[pixel * channels + channel];
    }
    // Whole blocks are computed, so that the loops over BLOCK have a length that the compiler knows.
    for (int pixel = count; pixel < BLOCK; ++pixel) planes.level[0][pixel] = planes.level[1][pixel] = planes.level[2][pixel] = 0;
    return count;
}

inline int luminance_at(const Planes &planes, int i)
{
    return (19595 * planes.level[0][i] + 38470 * planes.level[1][i] + 7471 * planes.level[2][i] + 32768) >> 16;
}

// ------------------------------------------------------------------------------------------------ tables
void look_up(const Image &image)
{
    const uint8_t *levels = image.levels;
    const int channels = image.channels, size = image.pixels() * channels;
    // One table for all channels, as most steps have it: a plain loop over bytes.
    const bool is_one = channels == 1 || (!std::memcmp(levels, levels + 256, 256) && !std::memcmp(levels, levels + 512, 256));
    if (is_one && channels != 4) {
        for (int i = 0; i < size; ++i) image.to[i] = levels[image.from[i]];
        return;
    }
    for (int i = 0; i < size; i += channels) {
        for (int channel = 0; channel < 3; ++channel) image.to[i + channel] = levels[256 * channel + image.from[i + channel]];
        if (channels == 4) image.to[i + 3] = image.from[i + 3];
    }
}

void count(const Image &image, int channel, int *histogram)
{
    int parts[4][256] = {};              // neighbours are often equal: four counters do not wait for each other
    const int channels = image.channels, pixels = image.pixels();
    const uint8_t *from = image.from + channel;
    int pixel = 0;
    for (; pixel + 4 <= pixels; pixel += 4)
        for (int part = 0; part < 4; ++part) ++parts[part][from[(int64_t)(pixel + part) * channels]];
    for (; pixel < pixels; ++pixel) ++parts[0][from[(int64_t)pixel * channels]];
    for (int level = 0; level < 256; ++level)
        histogram[level] = parts[0][level] + parts[1][level] + parts[2][level] + parts[3][level];
    if (!image.levels) return;
    int moved[256] = {};                 // a table moves whole counts
    for (int level = 0; level < 256; ++level) moved[image.levels[256 * channel + level]] += histogram[level];
    std::memcpy(histogram, moved, sizeof moved);
}

void contrast_table(const Image &image, float factor, uint8_t *levels)
{
    int64_t light = 0;
    if (image.channels < 3) {
        for (int pixel = 0; pixel < image.pixels(); ++pixel) {
            const int level = image.from[(int64_t)pixel * image.channels];
            light += image.levels ? image.levels[level] : level;
        }
    } else {
        Planes planes;
        for (int start = 0; start < image.pixels(); start += BLOCK) {
            take_apart(image, start, planes);        // what is black there adds nothing
            // A block's sum fits an int, and vectorises as one.
            int sum = 0;
            for (int i = 0; i < BLOCK; ++i) sum += luminance_at(planes, i);
            light += sum;
        }
    }
    const int middle = (int)((double)light / image.pixels() + 0.5);
    for (int level = 0; level < 256; ++level) levels[level] = levels[256 + level] = levels[512 + level] = blended(middle, level, factor);
}

void autocontrast_table(const int *histogram, uint8_t *levels)
{
    int low = 0, high = 255;
    while (low < 255 && !histogram[low]) ++low;
    while (high > 0 && !histogram[high]) --high;
    const double scale = high > low ? 255.0 / (high - low) : 1.0, offset = high > low ? -low * scale : 0.0;
    for (int level = 0; level < 256; ++level) {
        // In double and in this form: the last bit decides where Pillow truncates.
        const double stretched = level * scale + offset;
        levels[level] = stretched <= 0.0 ? 0 : stretched >= 255.0 ? 255 : (uint8_t)(int)stretched;
    }
}

void equalize_table(const int *histogram, int pixels, uint8_t *levels)
{
    int last = 255, used = 0, below = 0;
    for (int level = 0; level < 256; ++level) used += histogram[level] != 0;
    while (last > 0 && !histogram[last]) --last;
    const int step = (pixels - histogram[last]) / 255;
    for (int level = 0; level < 256; ++level) {
        const int flat = used < 2 || step == 0 ? level : (step / 2 + below) / step;
        levels[level] = (uint8_t)(flat < 255 ? flat : 255);
        below += histogram[level];
    }
}

// The table of a step that looks at the image.
void measure(const Image &image, const double *step, uint8_t *levels)
{
    const int code = (int)step[0];
    if (code == CONTRAST) return contrast_table(image, (float)step[1], levels);
    for (int channel = 0; channel < image.colours() && channel < 3; ++channel) {
        int histogram[256];
        count(image, channel, histogram);
        if (code == AUTOCONTRAST) autocontrast_table(histogram, levels + 256 * channel);
        else equalize_table(histogram, image.pixels(), levels + 256 * channel);
    }
}

// ------------------------------------------------------------------------------------------------ single pixels
template <class Change> void change_pixels(const Image &image, Change change)
{
    Planes planes;
    const int channels = image.channels;
    for (int start = 0; start < image.pixels(); start += BLOCK) {
        const int count = take_apart(image, start, planes);
        const uint8_t *from = image.from + (int64_t)start * channels;
        uint8_t *to = image.to + (int64_t)start * channels;
        change(planes);
        for (int pixel = 0; pixel < count; ++pixel) {
            for (int channel = 0; channel < 3; ++channel) to[pixel * channels + channel] = (uint8_t)planes.level[channel][pixel];
            if (channels == 4) to[pixel * 4 + 3] = from[pixel * 4 + 3];
        }
    }
}

void recolour(Planes &planes, float factor)
{
    int grey[BLOCK];
    for (int i = 0; i < BLOCK; ++i) grey[i] = luminance_at(planes, i);
    for (int channel = 0; channel < 3; ++channel) {
        for (int i = 0; i < BLOCK; ++i) {
            const float mixed = factor * (float)(planes.level[channel][i] - grey[i]) + (float)grey[i];
            planes.level[channel][i] = (int)(mixed < 0.0f ? 0.0f : mixed > 255.0f ? 255.0f : mixed);
        }
    }
}

void rotate_hue(Planes &planes, float shift)
{
    const float per_level = (float)(1.0 / 255.0), sixth = (float)(1.0 / 6.0);
    for (int i = 0; i < BLOCK; ++i) {
        const float red = (float)planes.level[0][i] * per_level, green = (float)planes.level[1][i] * per_level;
        const float blue = (float)planes.level[2][i] * per_level;
        float most = red > green ? red : green, least = red < green ? red : green;
        most = most > blue ? most : blue;
        least = least < blue ? least : blue;
        const float spread = most - least, divisor = most == least ? 1.0f : spread;
        const float saturation = spread / (most == least ? 1.0f : most);
        const float from_red = (most - red) / divisor, from_green = (most - green) / divisor, from_blue = (most - blue) / divisor;
        const float sixths = most == red ? from_blue - from_green
            : most == green ? from_red + 2.0f - from_blue : from_green + 4.0f - from_red;
        float hue = sixths * sixth + 1.0f;
        hue = (hue >= 1.0f ? hue - 1.0f : hue) + shift;
        hue = hue >= 1.0f ? hue - 1.0f : hue < 0.0f ? hue + 1.0f : hue;
        const float six = hue * 6.0f;
        const int whole = (int)six;      // neither is negative
        const float part = saturation * (six - (float)whole), pale = 1.0f - saturation;
        auto within = [](float value) { return value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value; };
        const float sinking = within((1.0f - part) * most), rising = within((part + pale) * most), low = within(pale * most);
        // `hue` may round up to 1 where a negative sum was brought back.
        const int sector = whole == 6 ? 0 : whole;
        const float turned[3] = {
            sector == 0 || sector == 5 ? most : sector == 1 ? sinking : sector == 4 ? rising : low,
            sector == 1 || sector == 2 ? most : sector == 0 ? rising : sector == 3 ? sinking : low,
            sector == 3 || sector == 4 ? most : sector == 2 ? rising : sector == 5 ? sinking : low};
        for (int channel = 0; channel < 3; ++channel) planes.level[channel][i] = (int)(turned[channel] * 255.999f);
    }
}

void permute(const Image &image, const double *step)
{
    const int channels = image.channels, order[3] = {(int)step[1], (int)step[2], (int)step[3]};
    for (int i = 0; i < image.pixels() * channels; i += channels) {
        for (int channel = 0; channel < 3; ++channel) image.to[i + channel] = image.from[i + order[channel]];
        if (channels == 4) image.to[i + 3] = image.from[i + 3];
    }
}

// ------------------------------------------------------------------------------------------------ geometry
template <int C> inline void copy_pixel(const uint8_t *from, uint8_t *to, int channels)
{
    for (int channel = 0; channel < (C ? C : channels); ++channel) to[channel] = from[channel];
}

template <int C, class Find> void move_nearest(const Image &image, const double *step, Find find)
{
    const int channels = C ? C : image.channels;
    uint8_t fill[256];
    fill_pixel(step, channels < 256 ? channels : 256, fill);
    for (int row = 0; row < image.height; ++row) {
        uint8_t *to = image.to + (int64_t)row * image.width * channels;
        for (int col = 0; col < image.width; ++col, to += channels) {
            int from_row = row, from_col = col;
            find(from_row, from_col);
            // As unsigned numbers the negative ones are the largest: one comparison an axis.
            const bool is_inside = (unsigned)from_row < (unsigned)image.height && (unsigned)from_col < (unsigned)image.width;
            copy_pixel<C>(is_inside ? image.from + ((int64_t)from_row * image.width + from_col) * channels : fill, to, channels);
        }
    }
}

template <int C> void move(const Image &image, const double *step, const ProgramJob &job)
{
    const int code = (int)step[0];
    if (code == FIXED) {
        // 16.16: the products leave 32 bits.
        int64_t numbers[7];
        for (int i = 1; i < 7; ++i) numbers[i] = (int64_t)step[i];
        move_nearest<C>(image, step, [&](int &row, int &col) {
            const int64_t at_col = numbers[3] + col * numbers[1] + row * numbers[2];
            const int64_t at_row = numbers[6] + col * numbers[4] + row * numbers[5];
            col = (int)(at_col >> 16);
            row = (int)(at_row >> 16);
        });
    } else if (code == LINES) {
        const int32_t *cols = job.lines + (int)step[1], *rows = job.lines + (int)step[2];
        move_nearest<C>(image, step, [&](int &row, int &col) {
            col = cols[col];
            row = rows[row];
        });
    } else {
        move_nearest<C>(image, step, [&](int &row, int &col) {
            const double x = col + 0.5, y = row + 0.5, depth = step[7] * x + step[8] * y + 1.0;
            const double at_col = (step[1] * x + step[2] * y + step[3]) / depth, at_row = (step[4] * x + step[5] * y + step[6]) / depth;
            const bool is_inside = at_col >= 0.0 && at_col < image.width && at_row >= 0.0 && at_row < image.height;
            col = is_inside ? (int)at_col : -1;
            row = is_inside ? (int)at_row : -1;
        });
    }
}

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
    if (alpha == 0 || alpha == 255) return;
    for (int channel = 0; channel < channels - 1; ++channel) {
        const int quotient = 255 * pixel[channel] / alpha;
        pixel[channel] = (uint8_t)(quotient < 255 ? quotient : 255);
    }
}

template <int C> void move_bilinear(const Image &image, const double *step, uint8_t *room)
{
    const int channels = C ? C : image.channels, width = image.width, height = image.height;
    const uint8_t *from = image.from;
    if (image.has_alpha()) {
        // The whole image once, and not four taps of every pixel.
        std::memcpy(room, from, (int64_t)image.pixels() * channels);
        for (int pixel = 0; pixel < image.pixels(); ++pixel) premultiply(room + (int64_t)pixel * channels, channels);
        from = room;
    }
    uint8_t fill[256];
    fill_pixel(step, channels < 256 ? channels : 256, fill);
    const bool is_projective = step[7] != 0.0 || step[8] != 0.0;
    for (int row = 0; row < height; ++row) {
        const double y = row + 0.5;
        uint8_t *to = image.to + (int64_t)row * width * channels;
        for (int col = 0; col < width; ++col, to += channels) {
            const double x = col + 0.5;
            double at_col = step[1] * x + step[2] * y + step[3], at_row = step[4] * x + step[5] * y + step[6];
            if (is_projective) {
                const double depth = step[7] * x + step[8] * y + 1.0;
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
                    const double a = upper_line[left_at + channel], b = upper_line[right_at + channel];
                    const double c = lower_line[left_at + channel], d = lower_line[right_at + channel];
                    const double top = a + (b - a) * right_share, foot = c + (d - c) * right_share;
                    to[channel] = (uint8_t)(int)(top + (foot - top) * lower_share);
                }
            } else {
                copy_pixel<C>(fill, to, channels);
            }
            if (image.has_alpha()) unpremultiply(to, channels);
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
            const int total = sums[i - channels] + sums[i] + sums[i + channels] + 4 * at[i];
            const int smooth = (int)((unsigned)(2 * total + 13) / 26u);
            to[i] = blended(smooth, at[i], factor);
        }
        if (channels == 4)
            for (int i = 3; i < line; i += 4) to[i] = at[i];
    }
}

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
            const double level = std::nearbyint(total[i]);
            to[i] = level < 0.0 ? 0 : level > 255.0 ? 255 : (uint8_t)(int)level;
        }
    }
}

// ------------------------------------------------------------------------------------------------ a program
bool has(const ProgramJob &job, int code)
{
    for (int step = 0; step < job.num_steps; ++step)
        if ((int)job.steps[step * STEP_COLUMNS] == code) return true;
    return false;
}

int64_t image_bytes(const ProgramJob &job) { return ((int64_t)job.height * job.width * job.channels + 63) / 64 * 64; }

// Three images: one to write while another is read, one for premultiplied pixels; then what a row or a blur takes.
int64_t scratch_bytes(const ProgramJob *job)
{
    const int64_t line = (int64_t)job->width * job->channels;
    // A row of ints for the sharpening, or an image of doubles and a row for the blur: one of them at a time.
    const int64_t more = has(*job, BLUR) ? (job->height + 1) * line * 8 : line * 4;
    return 3 * image_bytes(*job) + more;
}

void copy_tight(const ProgramJob &job, uint8_t *to)
{
    for (int row = 0; row < job.height; ++row) {
        const uint8_t *line = job.source + row * job.row_stride;
        for (int channel = 0; channel < job.channels; ++channel) {
            const uint8_t *from = line + channel * job.channel_stride;
            for (int col = 0; col < job.width; ++col) to[(int64_t)col * job.channels + channel] = from[col * job.col_stride];
        }
        to += (int64_t)job.width * job.channels;
    }
}

void do_step(const Image &image, const double *step, const ProgramJob &job, uint8_t *room, void *more)
{
    const int code = (int)step[0];
    switch (code) {
    case COLOR: return change_pixels(image, [&](Planes &planes) { recolour(planes, (float)step[1]); });
    case GREY: return change_pixels(image, [](Planes &planes) { recolour(planes, 0.0f); });
    case HUE: return change_pixels(image, [&](Planes &planes) { rotate_hue(planes, (float)step[1]); });
    case PERMUTE: return permute(image, step);
    case SHARPNESS: return sharpen(image, (float)step[1], (int *)more);
    case BLUR: return blur(image, step, job.weights, (double *)more);
    case BILINEAR:
        if (image.channels == 3) return move_bilinear<3>(image, step, room);
        return move_bilinear<0>(image, step, room);
    default:
        if (image.channels == 3) return move<3>(image, step, job);
        if (image.channels == 1) return move<1>(image, step, job);
        return move<0>(image, step, job);
    }
}

bool is_table(int code) { return code == TABLE || code == CONTRAST || code == AUTOCONTRAST || code == EQUALIZE; }
bool takes_levels(int code) { return code == COLOR || code == GREY || code == HUE; }

// How often an image is written: tables wait for the next step, and go along with those that look at single pixels.
int num_passes(const ProgramJob &job)
{
    int passes = 0;
    bool waits = false;
    for (int step = 0; step < job.num_steps; ++step) {
        const int code = (int)job.steps[step * STEP_COLUMNS];
        if (is_table(code)) {
            waits = true;
        } else {
            passes += waits && !takes_levels(code) ? 2 : 1;
            waits = false;
        }
    }
    return passes + waits;
}

void run(const ProgramJob *asked, unsigned char *scratch)
{
    const ProgramJob &job = *asked;
    uint8_t *own = scratch, *tight = scratch + image_bytes(job), *room = tight + image_bytes(job);
    void *more = room + image_bytes(job);
    const bool is_tight = job.channel_stride == 1 && job.col_stride == job.channels && job.row_stride == (int64_t)job.width * job.channels;
    int left = num_passes(job);
    if (!is_tight || left == 0) copy_tight(job, left ? tight : job.target);
    uint8_t levels[TABLE_BYTES];
    Image image = {is_tight ? job.source : tight, nullptr, nullptr, job.height, job.width, job.channels};
    // The last pass writes to the target, the one before it not, and so on in turns.
    auto begin_pass = [&] { image.to = --left % 2 ? own : job.target; };
    auto end_pass = [&] { image.from = image.to, image.levels = nullptr; };
    for (int number = 0; number < job.num_steps; ++number) {
        const double *step = job.steps + number * STEP_COLUMNS;
        const int code = (int)step[0];
        if (is_table(code)) {
            uint8_t made[TABLE_BYTES] = {};
            const uint8_t *next = made;
            if (code == TABLE) next = job.tables + (int64_t)step[1] * TABLE_BYTES;
            else measure(image, step, made);
            // Through the pending tables first, then through these: exact, because each maps a level to a level.
            uint8_t both[TABLE_BYTES];
            for (int i = 0; i < TABLE_BYTES; ++i) both[i] = image.levels ? next[i / 256 * 256 + levels[i]] : next[i];
            std::memcpy(levels, both, TABLE_BYTES);
            image.levels = levels;
            continue;
        }
        if (image.levels && !takes_levels(code)) {
            begin_pass();
            look_up(image);
            end_pass();
        }
        begin_pass();
        do_step(image, step, job, room, more);
        end_pass();
    }
    if (!image.levels) return;
    begin_pass();
    look_up(image);
}

} // namespace

#define JOIN(a, b) a##b
#define EXPORTED(set) JOIN(gpuseq_program_, set)
extern "C" const ProgramEngine EXPORTED(SET);
const ProgramEngine EXPORTED(SET) = {scratch_bytes, run};
