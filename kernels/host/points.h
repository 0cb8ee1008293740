// Steps of single pixels on one image of uint8: as many as come after one another in one pass, which looks at the image where
// the next step asks for that, and writes the finished floats where there is none and they are scaled levels.
#pragma once
#include "moves.h"
#include "store.h"

namespace {

struct Point {
    int code;
    float factor;
    int order[3];                        // PERMUTE
    uint8_t levels[TABLE_BYTES];         // TABLE
};

// Steps of single pixels that have not been done yet; a table after a table is one table, which is exact.
struct Points {
    static constexpr int MOST = 8;
    Point steps[MOST];
    int count = 0;
    void add_table(const uint8_t *levels)
    {
        if (count && steps[count - 1].code == TABLE) {
            uint8_t *before = steps[count - 1].levels;
            for (int i = 0; i < TABLE_BYTES; ++i) before[i] = levels[i / 256 * 256 + before[i]];
            return;
        }
        steps[count].code = TABLE;
        std::memcpy(steps[count++].levels, levels, TABLE_BYTES);
    }
    void add(const double *step)
    {
        Point &point = steps[count++];
        point.code = (int)step[0];
        point.factor = point.code == GREY ? 0.0f : (float)step[1];
        for (int channel = 0; channel < 3; ++channel) point.order[channel] = (int)step[1 + channel];
    }
    bool only_table() const { return count <= 1 && (!count || steps[0].code == TABLE); }
    // One table for all channels: which channel a level is of does not matter then.
    bool only_one_table() const
    {
        const uint8_t *levels = steps[0].levels;
        return count == 1 && steps[0].code == TABLE && !std::memcmp(levels, levels + 256, 512);
    }
};

enum Look { NO_LOOK, LIGHT, COUNTS, BOTH };        // bits

struct Seen {
    int64_t light;                       // of all luminances
    int counts[3][256];
};

// Four counters for each level: neighbours are often equal, and do not wait for each other then.
struct Counters {
    int parts[3][4][256];
};

void count(const Planes &planes, int num_planes, int pixels, Counters &counters)
{
    for (int channel = 0; channel < num_planes; ++channel) {
        const uint8_t *plane = planes.level[channel];
        auto &parts = counters.parts[channel];
        int pixel = 0;
        for (; pixel + 4 <= pixels; pixel += 4)
            for (int part = 0; part < 4; ++part) ++parts[part][plane[pixel + part]];
        for (; pixel < pixels; ++pixel) ++parts[0][plane[pixel]];
    }
}

// Where the floats of a finished image go that are its scaled levels.
struct Finished {
    float *out;
    int64_t plane;                       // values from one channel's plane to the next; 0: channels last
    float by;
    bool streams;

    void put(const Planes &planes, int start, int pixels, int channels) const
    {
        if (channels == 1 || plane) {
            for (int channel = 0; channel < channels; ++channel)
                scale_bytes(planes.level[channel], pixels, by, out + channel * plane + start, streams);
            return;
        }
        uint8_t together[3 * BLOCK];
        put_rgb_together(planes, pixels, together);
        scale_bytes(together, 3 * pixels, by, out + (int64_t)start * 3, streams);
    }
};

void change(Planes &planes, int num_planes, const Point &point)
{
    switch (point.code) {
    case TABLE:
        for (int channel = 0; channel < num_planes; ++channel) look_up(planes.level[channel], BLOCK, point.levels + 256 * channel);
        return;
    case HUE: return rotate_hue(planes, point.factor);
    case PERMUTE: {
        const Planes before = planes;
        for (int channel = 0; channel < 3; ++channel) std::memcpy(planes.level[channel], before.level[point.order[channel]], BLOCK);
        return;
    }
    default: return recolour(planes, point.factor);
    }
}

// All levels of an image through one table.
void pass_table(const Image &image, const uint8_t *table, const Finished *finished)
{
    constexpr int SIZE = 4 * BLOCK;
    alignas(64) uint8_t levels[SIZE] = {};
    const int64_t size = (int64_t)image.pixels() * image.channels;
    for (int64_t start = 0; start < size; start += SIZE) {
        const int count = size - start < SIZE ? (int)(size - start) : SIZE;
        std::memcpy(levels, image.from + start, count);
        look_up(levels, SIZE, table);
        if (finished) scale_bytes(levels, count, finished->by, finished->out + start, finished->streams);
        else std::memcpy(image.to + start, levels, count);
    }
}

// Does the steps to each pixel, looks at the result, and writes it where there is a place for it: as levels, or as what is
// finished.
void pass(const Image &image, const Points &points, Look look, Seen *seen, const Finished *finished = nullptr)
{
    const bool is_in_order = !finished || !finished->plane || image.channels == 1;
    if (!look && is_in_order && !image.has_alpha() && image.channels <= 3 && points.only_one_table())
        return pass_table(image, points.steps[0].levels, finished);
    Planes planes;
    Counters counters;
    int64_t light = 0;
    if (look & COUNTS) std::memset(&counters, 0, sizeof counters);
    const int channels = image.channels, num_planes = channels < 3 ? 1 : 3;
    for (int start = 0; start < image.pixels(); start += BLOCK) {
        const int pixels = image.pixels() - start < BLOCK ? image.pixels() - start : BLOCK;
        const uint8_t *from = image.from + (int64_t)start * channels;
        if (pixels < BLOCK) std::memset(&planes, 0, sizeof planes);
        if (channels == 3) {
            take_rgb_apart(from, pixels, planes);
        } else {
            for (int channel = 0; channel < num_planes; ++channel)
                for (int pixel = 0; pixel < pixels; ++pixel) planes.level[channel][pixel] = from[pixel * channels + channel];
        }
        for (int number = 0; number < points.count; ++number) change(planes, num_planes, points.steps[number]);
        if (look & COUNTS) count(planes, num_planes, pixels, counters);
        if (look & LIGHT) {
            for (int plane = 0; plane < num_planes; ++plane) std::memset(planes.level[plane] + pixels, 0, BLOCK - pixels);
            if (num_planes == 3) light += light_of(planes);
            else for (int pixel = 0; pixel < pixels; ++pixel) light += planes.level[0][pixel];
        }
        if (finished) finished->put(planes, start, pixels, channels);
        if (finished || !image.to) continue;
        uint8_t *to = image.to + (int64_t)start * channels;
        if (channels == 3) {
            put_rgb_together(planes, pixels, to);
            continue;
        }
        for (int pixel = 0; pixel < pixels; ++pixel) {
            for (int channel = 0; channel < num_planes; ++channel) to[pixel * channels + channel] = planes.level[channel][pixel];
            if (channels == 4) to[pixel * 4 + 3] = from[pixel * 4 + 3];
        }
    }
    if (look & LIGHT) seen->light = light;
    if (look & COUNTS)
        for (int channel = 0; channel < num_planes; ++channel)
            for (int level = 0; level < 256; ++level) {
                const auto &parts = counters.parts[channel];
                seen->counts[channel][level] = parts[0][level] + parts[1][level] + parts[2][level] + parts[3][level];
            }
}

// ------------------------------------------------------------------------------------------------ tables of what was seen
// Pillow's mean luminance of the whole image, rounded half up, is what levels move away from or towards.
void contrast_table(int64_t light, int pixels, float factor, uint8_t *levels)
{
    const int middle = (int)((double)light / pixels + 0.5);
    for (int level = 0; level < 256; ++level) levels[level] = levels[256 + level] = levels[512 + level] = blended(middle, level, factor);
}

void autocontrast_table(const int *histogram, uint8_t *levels)
{
    int low = 0, high = 255;
    while (low < 255 && !histogram[low]) ++low;
    while (high > 0 && !histogram[high]) --high;
    // An image of one level stays as it is.
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
    // The pixels of the highest level are not counted, as in Pillow.
    const int step = (pixels - histogram[last]) / 255;
    for (int level = 0; level < 256; ++level) {
        const int flat = used < 2 || step == 0 ? level : (step / 2 + below) / step;
        levels[level] = (uint8_t)(flat < 255 ? flat : 255);
        below += histogram[level];
    }
}

} // namespace
