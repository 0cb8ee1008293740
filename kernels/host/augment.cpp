// One instruction set's engine: source images to the finished batch, as the kernels of augment.cu and reduce.cu do it on a
// GPU. Compiled once for each instruction set, with SET its name (build.py).
//
// A unit of work is a band of rows of one sample, or the whole sample where it is reduced first: unless several threads share
// that one in stages. It allocates nothing: the caller brings each thread's scratch memory. Nothing of the standard library with code of its own may be used here: the
// linker would take the copy of any instruction set.
#include "affine.h"
#include "colour.h"
#include "store.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace {

// The scratch memory of a thread, cut up. With a null base it only counts.
class Arena {
    unsigned char *const base_;
    int64_t used_ = 0;

public:
    explicit Arena(unsigned char *base) : base_(base) {}
    template <class T> T *take(int64_t count)
    {
        T *const at = base_ ? (T *)(void *)(base_ + used_) : nullptr;
        const int64_t end = used_ + (count + SPARE) * (int64_t)sizeof(T);
#if defined(__SANITIZE_ADDRESS__)        // a wall behind each buffer, which the allocator does not know of
        if (base_) {
            __asan_unpoison_memory_region(base_ + used_, end - used_);
            __asan_poison_memory_region(base_ + ((end + 7) & ~(int64_t)7), WALL - 8);
        }
#endif
        used_ = (end + WALL + 63) & ~(int64_t)63;
        return at;
    }
    int64_t used() const { return used_; }

private:
#if defined(__SANITIZE_ADDRESS__)
    static constexpr int64_t WALL = 64;
#else
    static constexpr int64_t WALL = 0;
#endif
};

bool needs_sample(const Job &job) { return job.has_range || job.samplewise_center || job.samplewise_std; }

bool is_one_block(const Job &job) { return (int64_t)job.height * job.width * job.channels <= WHOLE_SOURCE; }

int block_cols(const Job &job) { return is_one_block(job) || job.width < BLOCK_COLS ? job.width : BLOCK_COLS; }

int num_bands(const Job &job) { return (job.height + job.rows_per_unit - 1) / job.rows_per_unit; }

// A sample that is reduced, between its stages.
template <class Compute> struct Kept {
    int64_t row_size;                    // values from one row to the next
    Compute *values;
    Compute *ranges;                     // the least and the greatest value of each band
    double *sums[3], *means;             // of the values, of the centred ones, of the squares: a row of sums for each band
};

template <class Compute> Kept<Compute> kept_in(const Job &job, Arena &arena)
{
    Kept<Compute> kept = {};
    const int64_t line = (int64_t)job.width * job.channels, bands = num_bands(job);
    const bool has_sums[3] = {job.samplewise_center || job.samplewise_std, job.samplewise_center && job.samplewise_std, job.samplewise_std != 0};
    kept.row_size = line + SPARE;
    kept.values = arena.take<Compute>(job.height * kept.row_size);
    kept.ranges = arena.take<Compute>(2 * bands);
    for (int which = 0; which < 3; ++which) kept.sums[which] = arena.take<double>(has_sums[which] ? bands * line : 0);
    kept.means = arena.take<double>(3);
    return kept;
}

template <class Compute> int64_t kept_size(const Job &job)
{
    Arena arena(nullptr);
    kept_in<Compute>(job, arena);
    return arena.used();
}

// `Source` is what the copied source holds, `Compute` what the arithmetic is in.
template <class From, class Source, class Compute> class Worker {
    const Job &job_;
    AffineScratch<Source> affine_;
    Compute *values_, *planes_, *spread_room_;
    double *sums_;
    Spread<Compute> spread_;
    Kept<Compute> kept_ = {};

public:
    Worker(const Job &job, Arena &arena) : job_(job)
    {
        const int cols = block_cols(job);
        const int64_t line = (int64_t)(needs_sample(job) ? job.width : cols) * job.channels;
        RowTaps &taps = affine_.taps;
        double **const arrays[] = {&taps.col_row, &taps.col_col, &taps.row, &taps.col, &taps.weight[0], &taps.weight[1], &taps.weight[2], &taps.weight[3]};
        for (double **array : arrays) *array = arena.take<double>(cols);
        taps.offset = arena.take<int32_t>(cols);
        affine_.copy = arena.take<Source>(copy_values(job));
        planes_ = arena.take<Compute>(line);
        spread_room_ = arena.take<Compute>(4 * line);
        const bool has_sums = job.samplewise_center || job.samplewise_std;
        sums_ = arena.take<double>(has_sums ? PairwiseRows::doubles(job.height, line) : 0);
        values_ = arena.take<Compute>(needs_sample(job) ? 0 : line);
        if (needs_sample(job) && !job.kept) kept_ = kept_in<Compute>(job, arena);
    }

    void run(int64_t first, int64_t last)
    {
        const bool gathers = job_.kept && (job_.stage == GATHER_VALUES || job_.stage == GATHER_CENTRED || job_.stage == GATHER_SQUARES);
        const int64_t bands = gathers ? 1 : num_bands(job_);
        spread_ = spread_of(job_, needs_sample(job_) ? job_.width : block_cols(job_), spread_room_);
        for (int64_t unit = first; unit < last; ++unit) {
            const int first_row = (int)(unit % bands) * job_.rows_per_unit;
            const int rows = job_.height - first_row < job_.rows_per_unit ? job_.height - first_row : job_.rows_per_unit;
            const int64_t sample = unit / bands;
            if (!needs_sample(job_)) {
                band(sample, first_row, rows);
            } else if (job_.kept) {
                Arena arena((unsigned char *)job_.kept + sample * kept_size<Compute>(job_));
                kept_ = kept_in<Compute>(job_, arena);
                advance((Stage)job_.stage, sample, (int)(unit % bands), first_row, rows);
            } else {
                for (int stage = 0; stage < NUM_STAGES; ++stage) advance((Stage)stage, sample, 0, 0, job_.height);
            }
        }
    }

private:
    // Calls values_of and use with (row of the batch, first column, columns).
    template <class ValuesOf, class Use>
    void each_row(int64_t sample, int first_row, int num_rows, ValuesOf values_of, Use use)
    {
        const Placing placing = place(job_, sample);
        const From *image = (const From *)job_.images + placing.source_index * job_.height * job_.width * job_.channels;
        const int most_rows = is_one_block(job_) ? num_rows : BLOCK_ROWS, most_cols = block_cols(job_);
        for (int row = first_row; row < first_row + num_rows; row += most_rows) {
            const int rows = first_row + num_rows - row < most_rows ? first_row + num_rows - row : most_rows;
            for (int col = 0; col < job_.width; col += most_cols) {
                const Block block = {row, rows, col, job_.width - col < most_cols ? job_.width - col : most_cols};
                const auto values = [&](int local) { return values_of(row + local, col); };
                const auto done = [&](int local) { use(row + local, col, block.num_cols); };
                if (placing.has_affine) warp_block(job_, placing, block, image, affine_, values, done);
                else copy_block(job_, placing, block, image, values, done);
            }
        }
    }

    void standardize_featurewise(Compute *values, int64_t num_values) const
    {
        if (spread_.mean) subtract_each(values, num_values, spread_.mean);
        if (spread_.divisor) divide_each(values, num_values, spread_.divisor);
    }

    // Whether bytes become floats as they lie, scaled and nothing else.
    bool is_plain(const Placing &placing, const Colour<Compute> &colour) const
    {
        return only_scales(job_) && job_.source_channels_last && job_.out_channels_last && !placing.has_affine && !placing.flip_rows
            && !placing.flip_cols && !colour.shifts && !colour.brightens;
    }

    // No pixel waits for another: each row is finished while it is in the first-level cache.
    void band(int64_t sample, int first_row, int num_rows)
    {
        if constexpr (sizeof(From) == 1 && sizeof(Compute) == 4) {
            const Placing placing = place(job_, sample);
            if (is_plain(placing, colour_of<Compute>(job_, sample))) {
                const int64_t line = (int64_t)job_.width * job_.channels, start = first_row * line;
                const From *image = (const From *)job_.images + placing.source_index * job_.height * line;
                float *out = (float *)job_.out + sample * job_.height * line;
                scale_bytes(image + start, num_rows * line, (float)job_.rescale, out + start, job_.streams);
                return;
            }
        }
        const Colour<Compute> colour = colour_of<Compute>(job_, sample);
        each_row(sample, first_row, num_rows, [&](int, int) { return values_; }, [&](int row, int col, int num_cols) {
            recolour(values_, num_cols, job_.channels, colour);
            preprocess(job_, values_, num_cols, spread_);
            standardize_featurewise(values_, (int64_t)num_cols * job_.channels);
            put(job_, sample, row, col, num_cols, values_, planes_);
        });
    }

    // One stage of a band of a sample whose values are kept; `num_rows` from `first_row` on.
    void advance(Stage stage, int64_t sample, int band, int first_row, int num_rows)
    {
        const int width = job_.width, channels = job_.channels, last_row = first_row + num_rows;
        const int64_t line = (int64_t)width * channels;
        const bool centers = job_.samplewise_center, scales = job_.samplewise_std;
        const auto same = [](double value) { return value; };
        switch (stage) {
        case STAGE_VALUES: {
            const bool has_range = ranges(colour_of<Compute>(job_, sample));
            Range<Compute> range = {(Compute)INFINITY, (Compute)-INFINITY};
            each_row(sample, first_row, num_rows, [&](int row, int col) { return row_at(row) + (int64_t)col * channels; },
                     [&](int row, int col, int num_cols) {
                         if (has_range) range.see(row_at(row) + (int64_t)col * channels, (int64_t)num_cols * channels);
                     });
            kept_.ranges[2 * band] = range.low;
            kept_.ranges[2 * band + 1] = range.high;
            return;
        }
        case STAGE_COLOURS: {
            Colour<Compute> colour = colour_of<Compute>(job_, sample);
            if (ranges(colour)) {
                Range<Compute> range = {(Compute)INFINITY, (Compute)-INFINITY};
                range.see(kept_.ranges, 2 * num_bands(job_));
                set_range(colour, range);
            }
            for (int row = first_row; row < last_row; ++row) {
                recolour(row_at(row), width, channels, colour);
                preprocess(job_, row_at(row), width, spread_);
            }
            if (centers || scales) add_up(0, band, first_row, last_row, same);
            return;
        }
        case STAGE_CENTER: {
            if (!centers) return;
            const Compute mean = (Compute)kept_.means[0];
            for (int row = first_row; row < last_row; ++row) subtract(row_at(row), line, mean);
            if (scales) add_up(1, band, first_row, last_row, same);
            return;
        }
        case STAGE_SQUARES: {
            if (!scales) return;
            const double mean = kept_.means[centers ? 1 : 0];
            add_up(2, band, first_row, last_row, [mean](double value) { return (value - mean) * (value - mean); });
            return;
        }
        // A pass for each thing: all things row by row, beside the sums and what is streamed, took 5 to 10 % longer.
        case STAGE_BATCH: {
            if (scales) {
                const Compute divisor = (Compute)std::sqrt(kept_.means[2]) + (Compute)1e-6;
                for (int row = first_row; row < last_row; ++row) divide(row_at(row), line, divisor);
            }
            for (int row = first_row; row < last_row; ++row) {
                standardize_featurewise(row_at(row), line);
                put(job_, sample, row, 0, width, row_at(row), planes_);
            }
            return;
        }
        case GATHER_VALUES: if (centers || scales) gather(0); return;
        case GATHER_CENTRED: if (centers && scales) gather(1); return;
        case GATHER_SQUARES: if (scales) gather(2); return;
        case NUM_STAGES: return;
        }
    }

    Compute *row_at(int row) const { return kept_.values + row * kept_.row_size; }

    bool ranges(const Colour<Compute> &colour) const { return job_.has_range && (colour.shifts || colour.brightens); }

    // A band's row of sums of what `of` makes of each value.
    template <class Of> void add_up(int which, int band, int first_row, int last_row, Of of)
    {
        const int64_t line = (int64_t)job_.width * job_.channels;
        PairwiseRows sums(sums_, line);
        for (int row = first_row; row < last_row; ++row) {
            const Compute *__restrict__ from = row_at(row);
            double *__restrict__ to = sums.next();
            for (int64_t at = 0; at < line; ++at) to[at] = of((double)from[at]);
            sums.push();
        }
        std::memcpy(kept_.sums[which] + band * line, sums.row(), (size_t)line * sizeof(double));
    }

    // The mean, from the rows of sums of all bands.
    void gather(int which)
    {
        const int64_t line = (int64_t)job_.width * job_.channels;
        PairwiseRows sums(sums_, line);
        for (int band = 0; band < num_bands(job_); ++band) {
            std::memcpy(sums.next(), kept_.sums[which] + band * line, (size_t)line * sizeof(double));
            sums.push();
        }
        kept_.means[which] = sums.total(job_.width, job_.channels) / ((double)line * job_.height);
    }
};

// Calls use(worker) with the worker for the job's types.
template <class Use> bool with_worker(const Job &job, unsigned char *scratch, Use use)
{
    Arena arena(scratch);
    switch (job.source_kind * 2 + (job.is_double != 0)) {
#define CASE(KIND, DOUBLE, FROM, SOURCE, COMPUTE) \
    case KIND * 2 + DOUBLE: { \
        Worker<FROM, SOURCE, COMPUTE> worker(job, arena); \
        use(worker, arena); \
        return true; \
    }
        CASE(SOURCE_UINT8, 0, uint8_t, uint8_t, float)
        CASE(SOURCE_UINT8, 1, uint8_t, double, double)
        CASE(SOURCE_UINT16, 0, uint16_t, uint16_t, float)
        CASE(SOURCE_UINT16, 1, uint16_t, double, double)
        CASE(SOURCE_FLOAT32, 0, float, float, float)
        CASE(SOURCE_FLOAT32, 1, float, double, double)
        CASE(SOURCE_FLOAT64, 0, double, float, float)        // Keras casts the image before it warps it
        CASE(SOURCE_FLOAT64, 1, double, double, double)
#undef CASE
    }
    return false;
}

int64_t scratch_bytes(const Job *job)
{
    int64_t bytes = -1;
    with_worker(*job, nullptr, [&](auto &, const Arena &arena) { bytes = arena.used(); });
    return bytes;
}

int64_t kept_bytes(const Job *job)
{
    return !needs_sample(*job) ? 0 : job->is_double ? kept_size<double>(*job) : kept_size<float>(*job);
}

void augment(const Job *job, int64_t first, int64_t last, unsigned char *scratch)
{
    with_worker(*job, scratch, [&](auto &worker, const Arena &) { worker.run(first, last); });
#if defined(__AVX__)
    if (job->streams) _mm_sfence();      // what was streamed is seen by other threads before we say that it is there
#endif
}

} // namespace

#define JOIN(a, b) a##b
#define EXPORTED(set) JOIN(gpuseq_augment_, set)
extern "C" const AugmentEngine EXPORTED(SET);
const AugmentEngine EXPORTED(SET) = {scratch_bytes, kept_bytes, augment};
