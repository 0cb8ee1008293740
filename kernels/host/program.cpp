// The modern augmentations on images of uint8, step after step, as Pillow does them: the arithmetic of kernels/program.cuh
// over whole images, and then what `finish` asks for.
#include "program.h"

#include "erase.h"
#include "moves.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace {

// ------------------------------------------------------------------------------------------------ steps of single pixels
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

enum Look { NO_LOOK, LIGHT, COUNTS };

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
    if (look == COUNTS) std::memset(&counters, 0, sizeof counters);
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
        if (look == COUNTS) count(planes, num_planes, pixels, counters);
        if (look == LIGHT) {
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
    if (look == LIGHT) seen->light = light;
    if (look == COUNTS)
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

// ------------------------------------------------------------------------------------------------ a program
int64_t image_bytes(const ProgramJob &job) { return ((int64_t)job.height * job.width * job.channels + 63) / 64 * 64; }

int64_t row_bytes(const ProgramJob &job)
{
    const int64_t line = (int64_t)job.width * job.channels;
    return ((job.has_blur ? (job.height + 1) * line * 8 : line * 4) + 63) / 64 * 64;
}

// Three images, so that one is kept while a chain goes from one of the others to the other; one for premultiplied pixels; what
// a row or a blur takes; the sum of the chains.
int64_t scratch_bytes(const ProgramJob *job)
{
    return 4 * image_bytes(*job) + row_bytes(*job) + (job->has_mix ? 4 * image_bytes(*job) : 0);
}

// Does the steps of one sample.
class Runner {
    const ProgramJob &job_;
    uint8_t *images_[3], *room_;
    void *more_;
    float *total_;
    Image image_;
    Points points_;
    const uint8_t *origin_ = nullptr;    // what the chains of a mix start from
    bool is_first_chain_ = false;

public:
    Runner(const ProgramJob &job, uint8_t *scratch) : job_(job), image_{nullptr, nullptr, job.height, job.width, job.channels}
    {
        uint8_t **const images[] = {&images_[0], &images_[1], &images_[2], &room_};
        for (uint8_t **image : images) {
            *image = scratch;
            scratch += image_bytes(job);
        }
        more_ = scratch;
        total_ = (float *)(void *)(scratch + row_bytes(job));
    }
    float *line() { return (float *)more_; }

    // Where the result lies: in the scratch, or at `source` where there is nothing to do to it; null where it has gone to
    // `finished`, which may be null.
    const uint8_t *run(const uint8_t *source, const double *steps, int64_t num_steps, const Finished *finished)
    {
        points_.count = 0;
        origin_ = nullptr;
        image_.from = source;
        const int line = image_.width * image_.channels;
        if (job_.channel_stride != 1 || job_.col_stride != image_.channels || job_.row_stride != line) copy_tight(source);
        for (int64_t number = 0; number < num_steps; ++number) do_step(steps + number * STEP_COLUMNS);
        if (finished && points_.count) {
            pass(image_, points_, NO_LOOK, nullptr, finished);
            return nullptr;
        }
        flush();
        return image_.from;
    }

private:
    void copy_tight(const uint8_t *source)
    {
        uint8_t *to = images_[0];
        image_.from = to;
        for (int row = 0; row < job_.height; ++row) {
            for (int channel = 0; channel < job_.channels; ++channel) {
                const uint8_t *from = source + row * job_.row_stride + channel * job_.channel_stride;
                for (int col = 0; col < job_.width; ++col) to[(int64_t)col * job_.channels + channel] = from[col * job_.col_stride];
            }
            to += (int64_t)job_.width * job_.channels;
        }
    }

    // There is one at any time: of three at most two are in use, what is read and what the chains of a mix start from.
    uint8_t *free_image()
    {
        for (uint8_t *image : images_)
            if (image != image_.from && image != origin_) return image;
        return nullptr;
    }

    template <class Do> void write(Do work)
    {
        image_.to = free_image();
        work();
        image_.from = image_.to;
    }

    void flush(Look look = NO_LOOK, Seen *seen = nullptr)
    {
        if (!points_.count && !look) return;
        // A table alone can wait for what comes after the look.
        if (look && points_.only_table()) {
            image_.to = nullptr;
            pass(image_, points_, look, seen);
            return;
        }
        write([&] { pass(image_, points_, look, seen); });
        points_.count = 0;
    }

    void measure(const double *step)
    {
        const int code = (int)step[0];
        Seen seen;
        uint8_t levels[TABLE_BYTES] = {};
        flush(code == CONTRAST ? LIGHT : COUNTS, &seen);
        if (code == CONTRAST) contrast_table(seen.light, image_.pixels(), (float)step[1], levels);
        for (int channel = 0; code != CONTRAST && channel < image_.colours(); ++channel) {
            if (code == AUTOCONTRAST) autocontrast_table(seen.counts[channel], levels + 256 * channel);
            else equalize_table(seen.counts[channel], image_.pixels(), levels + 256 * channel);
        }
        points_.add_table(levels);
    }

    // Adds what a chain has made, weighted, and goes back to where it began.
    void end_chain(float weight)
    {
        flush();
        const int64_t size = (int64_t)image_.pixels() * image_.channels;
        if (is_first_chain_)
            for (int64_t i = 0; i < size; ++i) total_[i] = weight * (float)image_.from[i];
        else
            for (int64_t i = 0; i < size; ++i) total_[i] += weight * (float)image_.from[i];
        is_first_chain_ = false;
        image_.from = origin_;
    }

    void end_mix(float share)
    {
        write([&] {
            const int64_t size = (int64_t)image_.pixels() * image_.channels;
            for (int64_t i = 0; i < size; ++i) image_.to[i] = blended(origin_[i], truncated(total_[i]), share);
        });
        origin_ = nullptr;
    }

    void do_step(const double *step)
    {
        const int code = (int)step[0];
        if (points_.count == Points::MOST) flush();
        switch (code) {
        case TABLE: return points_.add_table(job_.tables + (int64_t)step[1] * TABLE_BYTES);
        case COLOR: case GREY: case HUE: case PERMUTE: return points_.add(step);
        case CONTRAST: case AUTOCONTRAST: case EQUALIZE: return measure(step);
        }
        flush();
        switch (code) {
        case MIX:
            origin_ = image_.from;
            is_first_chain_ = true;
            return;
        case CHAIN_END: return end_chain((float)step[1]);
        case MIX_END: return end_mix((float)step[1]);
        }
        write([&] { move_or_filter(step, code); });
    }

    void move_or_filter(const double *step, int code)
    {
        switch (code) {
        case SHARPNESS: return sharpen(image_, (float)step[1], (int *)more_);
        case BLUR: return blur(image_, step, job_.weights, (double *)more_);
        case BILINEAR:
            if (image_.channels == 3) return move_bilinear<3>(image_, step, room_);
            return move_bilinear<0>(image_, step, room_);
        default:
            if (image_.channels == 3) return move<3>(image_, step, job_.lines);
            if (image_.channels == 1) return move<1>(image_, step, job_.lines);
            return move<0>(image_, step, job_.lines);
        }
    }
};

void run(const ProgramJob *asked, const Job *finish, const AugmentEngine *engine, int64_t first, int64_t last, unsigned char *scratch)
{
    const ProgramJob &job = *asked;
#if defined(__SANITIZE_ADDRESS__)        // the walls of `augment` in a batch before this one, of another size
    __asan_unpoison_memory_region(scratch, scratch_bytes(asked));
#endif
    Runner runner(job, scratch);
    // A copy: several threads read the same `finish`.
    Job one = *finish;
    const int64_t plane = (int64_t)job.height * job.width, sample_bytes = plane * job.channels * bytes_of(one.out_kind);
    const bool scales = only_scales(one);
    // What has passed the caches by is dear to write a second time.
    const bool scales_around = scales && CAN_STREAM && one.streams && (one.out_channels_last || job.channels == 1);
    Finished finished = {nullptr, one.out_channels_last ? 0 : plane, (float)one.rescale, one.streams != 0};
    for (int64_t sample = first; sample < last; ++sample) {
        const int64_t *numbers = job.samples + sample * 4;
        const double *erases = job.erases + numbers[2] * ERASE_COLUMNS, *const end = erases + numbers[3] * ERASE_COLUMNS;
        one.out = (uint8_t *)finish->out + sample * sample_bytes;
        finished.out = (float *)one.out;
        const Finished *at_once = scales && (job.channels == 1 || job.channels == 3) ? &finished : nullptr;
        const uint8_t *source = job.images + job.rows[sample] * job.image_stride;
        one.images = runner.run(source, job.steps + numbers[0] * STEP_COLUMNS, numbers[1], at_once);
        // At once, while the levels lie in the cache. Erasing comes after: it is in units of the finished batch.
        if (one.images && scales_around && erases < end && erases[8] == 0.0) {
            scale_around(one, (const uint8_t *)one.images, erases, runner.line());
            erases += ERASE_COLUMNS;
        } else if (one.images) {
            engine->augment(&one, 0, 1, scratch + scratch_bytes(asked));
        }
        for (; erases < end; erases += ERASE_COLUMNS) erase(one, erases, job.quantiles, runner.line());
    }
#if defined(__AVX__)
    if (one.streams) _mm_sfence();       // what was streamed is seen by other threads before we say that it is there
#endif
}

} // namespace

#define JOIN(a, b) a##b
#define EXPORTED(set) JOIN(gpuseq_program_, set)
extern "C" const ProgramEngine EXPORTED(SET);
const ProgramEngine EXPORTED(SET) = {scratch_bytes, run};
