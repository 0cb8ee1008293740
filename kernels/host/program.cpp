// The modern augmentations on images of uint8, step after step, as Pillow does them: the arithmetic of kernels/program.cuh
// over whole images, and then what `finish` asks for.
#include "program.h"

#include "erase.h"
#include "points.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace {

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
    uint8_t *learned_ = nullptr;         // where to the first step writes what it sees, or null

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
    const uint8_t *run(const uint8_t *source, const double *steps, int64_t num_steps, uint8_t *learned, const Finished *finished)
    {
        points_.count = 0;
        learned_ = learned;
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
        // The levels are in the cache: to count them for all three steps takes little more than for one.
        flush(learned_ ? BOTH : code == CONTRAST ? LIGHT : COUNTS, &seen);
        if (learned_)
            for (int other = CONTRAST; other <= EQUALIZE; ++other) tabulate(other, 0.0f, seen, learned_ + TABLE_BYTES * (other - CONTRAST));
        learned_ = nullptr;
        tabulate(code, (float)step[1], seen, levels);
        points_.add_table(levels);
    }

    void tabulate(int code, float factor, const Seen &seen, uint8_t *levels) const
    {
        if (code == CONTRAST) contrast_table(seen.light, image_.pixels(), factor, levels);
        for (int channel = 0; code != CONTRAST && channel < image_.colours(); ++channel) {
            if (code == AUTOCONTRAST) autocontrast_table(seen.counts[channel], levels + 256 * channel);
            else equalize_table(seen.counts[channel], image_.pixels(), levels + 256 * channel);
        }
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
        uint8_t *learned = job.learns && job.learns[sample] >= 0 ? job.learned + job.learns[sample] * 3 * TABLE_BYTES : nullptr;
        one.images = runner.run(source, job.steps + numbers[0] * STEP_COLUMNS, numbers[1], learned, at_once);
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
