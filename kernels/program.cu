// The modern augmentations on a batch: `prepare` for the samples that an image has to be made or looked at for first,
// `program` for all of them, in one launch with normalisation, layout, cast and erasing; `erase` where that comes apart.
//
// Macros: those of common.cuh, HAS_KERAS of program.cuh, and the two below; source images are uint8.
// Checked by gpuseq/ops/dispatch.py: dtype, channels, source rows. By gpuseq/ops/segments.py: the steps of a segment, what
// they point into, H, W < 2^15. By the launcher (gpuseq/ops/cuda/program.py): H * W * C < 2^31.

#ifndef FEATUREWISE_CENTER       // 1: subtract mean_c
#define FEATUREWISE_CENTER 0
#endif
#ifndef FEATUREWISE_STD          // 1: divide by divisor_c, which already holds the 1e-6
#define FEATUREWISE_STD 0
#endif

#define PREPARE_BLOCKS 4         // of `prepare`, at once on a multiprocessor: at most 64 registers
#define STAGE_COLUMNS 8          // numbers of a stage: from, first step, steps, to, measure, table, factor, source row
#define PARTIAL_COUNTS 768       // of one part of an image: pixels of each level and channel, or the sum of its light
#define UNIT_PIXELS 2048         // of one sample, for one block of `program`
// Plain segments have loops of their own, for which `program` takes up to 64 registers: four blocks at once on a multiprocessor.
// After Keras' ranges few segments are plain, and of many channels a pixel takes what four of few take: five blocks, 48 registers.
#define HAS_PLAIN (CHANNELS <= 4 && !HAS_KERAS)
#define PROGRAM_BLOCKS (HAS_PLAIN ? 4 : 5)

#define MEASURE_NOTHING 0
#define MEASURE_CONTRAST 1
#define MEASURE_AUTOCONTRAST 2
#define MEASURE_EQUALIZE 3

#define ERASE_COLUMNS 9          // top, left, height, width, then four values; the last: 1 for noise of the key in value 0

// Where the next pixel of a thread lies, as many pixels on as the block has threads: a division for each would be some
// twenty instructions.
struct Walk {
    int row, col, rows_down, cols_across;
};

DEVICE Walk walk_from(int pixel, int width)
{
    return {pixel / width, pixel % width, (int)blockDim.x / width, (int)blockDim.x % width};
}

DEVICE void go_on(Walk &at, int width)
{
    at.row += at.rows_down;
    at.col += at.cols_across;
    if (at.col >= width) {
        at.col -= width;
        ++at.row;
    }
}

DEVICE void load_steps(Steps &shared, const double *steps, int first, int count, const double *table, int height, int width)
{
    const double *own = steps + (long long)first * STEP_COLUMNS;
    for (int number = threadIdx.x; number < count * STEP_COLUMNS; number += blockDim.x) {
        shared.numbers[number] = own[number];
        shared.whole[number] = whole_of(own[number]);
    }
#if HAS_KERAS
    if (threadIdx.x == 0 && count > 0 && own[0] == STEP_KERAS) {
        const double *row = table + (long long)own[1] * NUM_COLUMNS;
        set_geometry(shared.sample, row, {height, width, CHANNELS});
#if HAS_BRIGHTNESS
        set_colour(shared.sample, row, 0.0, 255.0);
#endif
    }
#endif
}

// Makes pixels `start` to `stop` of a segment, by the whole block, and hands each to `to`: by `put`, or four neighbours by
// `put_four` where `takes_fours` says so. `start` is divisible by four.
template <class To>
DEVICE void make_pixels(To &to, const Steps &shared, int num_steps, const Levels &image, const Tables &read, int start, int stop, int height,
                        int width)
{
    const int stride = blockDim.x;
    const Plain kind = HAS_PLAIN ? plain_of(shared, num_steps) : Plain{false, false};
    const bool is_in_place = kind.is_plain && !kind.is_moved;
    if (is_in_place && is_in_fours(image, height * width) && takes_fours(to)) {
        // Pixels lie where they are put: four neighbours go together, and no row and no column is worked out.
        for (int position = start + AT_ONCE * (int)threadIdx.x; position < stop; position += AT_ONCE * stride) {
            const int first[AT_ONCE] = {0, 0, 0, 0};
            Pixel pixels[AT_ONCE];
            read_four(pixels, image, position);
            recolour_plain(pixels, first, shared, num_steps, read);
            put_four(to, position, pixels);
        }
    } else if (To::MOVES_FOUR && kind.is_plain) {
        Walk at = walk_from(start + threadIdx.x, width);
        for (int position = start + threadIdx.x; position < stop; position += AT_ONCE * stride) {
            int first[AT_ONCE], rows[AT_ONCE], cols[AT_ONCE];
            Pixel pixels[AT_ONCE];
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                if (kind.is_moved) {         // of one from `stop` on too nothing is read but what lies inside
                    rows[k] = at.row;
                    cols[k] = at.col;
                    go_on(at, width);
                } else {                     // as in one long row; for one from `stop` on the first is read again
                    rows[k] = 0;
                    cols[k] = position + k * stride < stop ? position + k * stride : position;
                }
            }
            read_plain(pixels, first, shared, num_steps, image, height, width, rows, cols);
            recolour_plain(pixels, first, shared, num_steps, read);
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k)
                if (position + k * stride < stop) put(to, position + k * stride, pixels[k]);
        }
    } else {
        Walk at = walk_from(start + threadIdx.x, width);
        for (int position = start + threadIdx.x; position < stop; position += stride, go_on(at, width))
            put(to, position, run_segment(shared, num_steps, image, read, height, width, at.row, at.col));
    }
}

DEVICE Levels source_image(const unsigned char *images, long long row, int height, int width)
{
    const unsigned char *data = images + row * ((long long)height * width * CHANNELS);
    if (SOURCE_CHANNELS_LAST) return {data, width * CHANNELS, CHANNELS, 1};
    return {data, width, 1, height * width};
}

DEVICE Levels scratch_image(const unsigned char *scratch, long long slot, int height, int width)
{
    return {scratch + slot * ((long long)height * width * CHANNELS), width * CHANNELS, CHANNELS, 1};
}

// Where image `from` of a sample lies: -1 the source, else a slot of the scratch.
DEVICE Levels image_of(const unsigned char *images, const unsigned char *scratch, double from, double source_row, int height, int width)
{
    if (from < 0.0) return source_image(images, (long long)source_row, height, width);
    return scratch_image(scratch, (long long)from, height, width);
}

// ------------------------------------------------------------------------------------------------ tables of measured images
DEVICE void write_contrast(unsigned char *levels, long long light, int num_pixels, float factor)
{
    const int middle = (int)((double)light / num_pixels + 0.5);
    for (int level = threadIdx.x; level < 256; level += blockDim.x) {
        const unsigned char changed = (unsigned char)blend_levels(middle, level, factor);
        for (int channel = 0; channel < 3; ++channel) levels[channel * 256 + level] = changed;
    }
}

DEVICE void write_autocontrast(unsigned char *levels, int low, int high)
{
    const double scale = high > low ? 255.0 / (high - low) : 1.0, offset = high > low ? -low * scale : 0.0;
    for (int level = threadIdx.x; level < 256; level += blockDim.x) {
        const double stretched = level * scale + offset;
        levels[level] = stretched <= 0.0 ? 0 : stretched >= 255.0 ? 255 : (unsigned char)(int)stretched;
    }
}

// `upto` counts the pixels of each level and of all below it.
DEVICE void write_equalized(unsigned char *levels, const int *upto, int high)
{
    const int step = (high > 0 ? upto[high - 1] : 0) / 255; // of all pixels but the lightest; 0 where there is one level
    for (int level = threadIdx.x; level < 256; level += blockDim.x) {
        const int below = level > 0 ? upto[level - 1] : 0;
        const int flat = step == 0 ? level : (step / 2 + below) / step;
        levels[level] = (unsigned char)(flat < 255 ? flat : 255);
    }
}

// What becomes of the pixels of a stage.
struct Stage {
    static constexpr bool MOVES_FOUR = false;    // it would spill some 300 bytes of registers
    bool is_kept;
    unsigned char *out;          // (H, W, C): where the image is kept, if it is
    int *counts;                 // of levels, the block's
    int light;                   // of the thread's own pixels
    int measure;
};

// Adds what a look wants to know of a pixel. Whole numbers: the order of their sums does not matter.
DEVICE void look_at(Stage &to, const Pixel &pixel)
{
    if (to.measure == MEASURE_CONTRAST) {
#if CHANNELS >= 3
        to.light += luminance(pixel);
#else
        to.light += pixel.level[0];
#endif
    } else if (to.measure != MEASURE_NOTHING) {
#pragma unroll
        for (int channel = 0; channel < COLOURS && channel < 3; ++channel) atomicAdd(to.counts + channel * 256 + pixel.level[channel], 1);
    }
}

DEVICE void put(Stage &to, int position, const Pixel &pixel)
{
    if (to.is_kept) {
#pragma unroll
        for (int channel = 0; channel < CHANNELS; ++channel) to.out[position * CHANNELS + channel] = (unsigned char)pixel.level[channel];
    }
    look_at(to, pixel);
}

DEVICE bool takes_fours(const Stage &to) { return (size_t)to.out % 4 == 0; }

DEVICE void put_four(Stage &to, int position, const Pixel *pixels)
{
    if (to.is_kept) {
#pragma unroll
        for (int number = 0; number < CHANNELS; ++number) {
            unsigned word = 0;
#pragma unroll
            for (int k = 0; k < 4; ++k)
                word |= (unsigned)pixels[(4 * number + k) / CHANNELS].level[(4 * number + k) % CHANNELS] << 8 * k;
            *(unsigned *)(to.out + position * CHANNELS + 4 * number) = word;
        }
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) look_at(to, pixels[k]);
}

// Makes the table of a look of what was counted of all parts of its image, by the whole block; `sums` is the block's own.
DEVICE void write_table(const double *numbers, const int *partials, unsigned char *made, int *sums, int num_parts, int num_pixels)
{
    const int measure = (int)numbers[4];
    unsigned char *levels = made + (long long)numbers[5] * TABLE_BYTES;
    if (measure == MEASURE_CONTRAST) {
        long long light = 0;
#pragma unroll 8                             // as many loads are in flight at once
        for (int part = 0; part < num_parts; ++part) light += partials[part * (long long)PARTIAL_COUNTS];
        write_contrast(levels, light, num_pixels, (float)numbers[6]);
        return;
    }
    int *ends = sums + 512;                  // the least and the greatest level that occurs
    for (int channel = 0; channel < COLOURS && channel < 3; ++channel) {
        __syncthreads();                     // what the block has counted may still be read, or the table before be made
        for (int level = threadIdx.x; level < 256; level += blockDim.x) {
            int seen = 0;
#pragma unroll 8
            for (int part = 0; part < num_parts; ++part) seen += partials[part * (long long)PARTIAL_COUNTS + channel * 256 + level];
            sums[level] = seen;              // pixels of a level, then of so many levels up to it
        }
        __syncthreads();
        int from = 0;                        // eight times between the two halves: an even number
        for (int reach = 1; reach < 256; reach *= 2, from = 256 - from) {
            for (int level = threadIdx.x; level < 256; level += blockDim.x)
                sums[256 - from + level] = sums[from + level] + (level >= reach ? sums[from + level - reach] : 0);
            __syncthreads();
        }
        for (int level = threadIdx.x; level < 256; level += blockDim.x) {
            const int below = level > 0 ? sums[level - 1] : 0;
            if (below == 0 && sums[level] > 0) ends[0] = level;
            if (below < num_pixels && sums[level] == num_pixels) ends[1] = level;
        }
        __syncthreads();
        if (measure == MEASURE_AUTOCONTRAST) {
            write_autocontrast(levels + channel * 256, ends[0], ends[1]);
        } else {
            write_equalized(levels + channel * 256, sums, ends[1]);
        }
    }
}

// Whether all parts of an image have been counted, of which the block has just counted one: it is the last of them then, and
// sees what the others have written. `ticket` is the image's own.
DEVICE bool is_last_part(int *ticket, bool *is_last, int num_parts)
{
    __syncthreads();                         // all threads have written what thread 0 lets the other blocks see
    if (threadIdx.x == 0) {
        __threadfence();
        *is_last = atomicAdd(ticket, 1) == num_parts - 1;
        if (*is_last) __threadfence();       // nothing that the others have written is read before
    }
    __syncthreads();
    return *is_last;
}

// One round of stages: of each sample that has so many, the images in the scratch, or the table of a look at one. A block works
// on one part of one image, and the last one of an image makes its table; the stages of a sample follow one another, launch by
// launch.
extern "C" __global__ void __launch_bounds__(MAX_BLOCK, PREPARE_BLOCKS) prepare(
    const unsigned char *__restrict__ images, // (M, H, W, C) or (M, C, H, W)
    const double *__restrict__ stages,        // (num_stages, STAGE_COLUMNS)
    const double *__restrict__ steps,         // (K, STEP_COLUMNS)
    const int *__restrict__ lines,
    const double *__restrict__ weights,
    const unsigned char *tables,              // (T, 3, 256); no __restrict__: a step reads one of these or one of `made`, and
                                              // what is written here must not be read as if it never changed (ld.global.nc)
    const double *__restrict__ table,         // (N, NUM_COLUMNS); null without HAS_KERAS
    unsigned char *made,                      // (num_made, 3, 256), then (S, H, W, C): what is written here and read again
    int *__restrict__ partials,               // (num_made, num_parts, PARTIAL_COUNTS)
    int *__restrict__ tickets,                // (num_made,): parts that have been counted; zeros before the first round
    int num_stages, int num_made, int num_parts, int height, int width)
{
    __shared__ Steps shared;
    __shared__ int counts[PARTIAL_COUNTS];
    __shared__ bool is_last;
    const int num_pixels = height * width, part_pixels = ((num_pixels + num_parts - 1) / num_parts + 3) / 4 * 4;
    unsigned char *scratch = made + (long long)num_made * TABLE_BYTES;
    const Tables read = {tables, made, lines, weights, scratch};
    for (int stage = blockIdx.y; stage < num_stages; stage += gridDim.y) {
        for (int part = blockIdx.x; part < num_parts; part += gridDim.x) {
            const double *numbers = stages + (long long)stage * STAGE_COLUMNS;
            const int start = part * part_pixels, stop = num_pixels - start < part_pixels ? num_pixels : start + part_pixels;
            const int num_steps = (int)numbers[2], measure = (int)numbers[4];
            const Levels image = image_of(images, scratch, numbers[0], numbers[7], height, width);
            const bool is_kept = numbers[3] >= 0.0;
            unsigned char *out = is_kept ? scratch + (long long)numbers[3] * ((long long)num_pixels * CHANNELS) : nullptr;
            __syncthreads();                 // the part before may still be worked on
            load_steps(shared, steps, (int)numbers[1], num_steps, table, height, width);
            if (measure != MEASURE_NOTHING)
                for (int count = threadIdx.x; count < PARTIAL_COUNTS; count += blockDim.x) counts[count] = 0;
            __syncthreads();
            Stage to = {is_kept, out, counts, 0, measure};
            make_pixels(to, shared, num_steps, image, read, start, stop, height, width);
            if (measure == MEASURE_NOTHING) continue;
            if (measure == MEASURE_CONTRAST) atomicAdd(counts, to.light);
            __syncthreads();
            const long long look = (long long)numbers[5];
            int *of_image = partials + look * num_parts * PARTIAL_COUNTS, *own = of_image + part * (long long)PARTIAL_COUNTS;
            const int num_counts = measure == MEASURE_CONTRAST ? 1 : PARTIAL_COUNTS;
            for (int count = threadIdx.x; count < num_counts; count += blockDim.x) own[count] = counts[count];
            if (is_last_part(tickets + look, &is_last, num_parts))
                write_table(numbers, of_image, made, counts, num_parts, num_pixels);
        }
    }
}

// ------------------------------------------------------------------------------------------------ the finished batch
DEVICE unsigned multiply_high(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }

// Normal number `element` of a key: Philox4x32-10, of which each word gives two numbers, its low half first.
DEVICE float normal_number(double key_number, unsigned element, const float *quantiles)
{
    const unsigned long long key = (unsigned long long)key_number;
    unsigned words[4] = {element / 8, 0, 0, 0}, low_key = (unsigned)key, high_key = (unsigned)(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const unsigned first_high = multiply_high(0xD2511F53u, words[0]), first_low = 0xD2511F53u * words[0];
        const unsigned second_high = multiply_high(0xCD9E8D57u, words[2]), second_low = 0xCD9E8D57u * words[2];
        words[0] = second_high ^ words[1] ^ low_key;
        words[1] = second_low;
        words[2] = first_high ^ words[3] ^ high_key;
        words[3] = first_low;
        low_key += 0x9E3779B9u;
        high_key += 0xBB67AE85u;
    }
    const unsigned lane = element % 8, pair = lane / 2;
    const unsigned word = pair == 0 ? words[0] : pair == 1 ? words[1] : pair == 2 ? words[2] : words[3];
    return quantiles[lane % 2 ? word >> 16 : word & 0xffffu];
}

DEVICE COMPUTE_T standardized(COMPUTE_T value, int channel, const COMPUTE_T *mean_c, const COMPUTE_T *divisor_c, double rescale)
{
    value = preprocess(value, channel, rescale);
#if FEATUREWISE_CENTER
    value -= mean_c[channel];
#endif
#if FEATUREWISE_STD
    value /= divisor_c[channel];
#endif
    return value;
}

// A sample of the batch, and what its pixels still need.
struct Finish {
    static constexpr bool MOVES_FOUR = true;
    OUT_T *out;                  // (H, W, C) or (C, H, W)
    const COMPUTE_T *mean_c, *divisor_c;
    double rescale;
    int num_pixels;
};

DEVICE OUT_T finished(const Finish &to, const Pixel &pixel, int channel)
{
    const COMPUTE_T value = (COMPUTE_T)pixel.level[source_channel(channel, CHANNELS)];
    return cast_out(standardized(value, channel, to.mean_c, to.divisor_c, to.rescale));
}

DEVICE void put(const Finish &to, int position, const Pixel &pixel)
{
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel)
        to.out[OUT_CHANNELS_LAST ? position * CHANNELS + channel : channel * to.num_pixels + position] = finished(to, pixel, channel);
}

// Four values of the batch that lie side by side: one store, two of doubles.
struct alignas(4 * sizeof(OUT_T) < 16 ? 4 * sizeof(OUT_T) : 16) FourValues {
    OUT_T values[4];
};

DEVICE bool takes_fours(const Finish &to) { return (size_t)to.out % alignof(FourValues) == 0; }

// Writes the four pixels that begin at a position divisible by four.
DEVICE void put_four(const Finish &to, int position, const Pixel *pixels)
{
#pragma unroll
    for (int number = 0; number < CHANNELS; ++number) {
        FourValues four;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const int value = 4 * number + k;
            four.values[k] = OUT_CHANNELS_LAST ? finished(to, pixels[value / CHANNELS], value % CHANNELS) : finished(to, pixels[k], number);
        }
        *(FourValues *)(to.out + (OUT_CHANNELS_LAST ? position * CHANNELS + 4 * number : number * to.num_pixels + position)) = four;
    }
}

// Writes what the erasing steps put into pixels `start` to `stop` of a sample of the batch, by the whole block: rectangle after
// rectangle, so that the last one stays.
DEVICE void erase_pixels(OUT_T *batch, const double *erases, int count, const float *quantiles, int start, int stop, int height, int width,
                         int channels)
{
    auto within = [](double edge, int from, int to) { return edge < from ? from : edge < to ? (int)edge : to; };
    const int first_row = start / width, end_row = (stop - 1) / width + 1;
    for (int number = 0; number < count; ++number) {
        const double *erase = erases + number * ERASE_COLUMNS;
        const int top = within(erase[0], first_row, end_row), bottom = within(erase[0] + erase[2], top, end_row);
        const int left = within(erase[1], 0, width), cols = within(erase[1] + erase[3], left, width) - left;
        const bool is_noise = erase[8] != 0.0;
        __syncthreads();                     // what lies below the rectangle was written by other threads
        for (int place = threadIdx.x; place < (bottom - top) * cols; place += blockDim.x) {
            const int row = top + place / cols, col = left + place % cols, position = row * width + col;
            if (position < start || position >= stop) continue;
            const int element = (row - (int)erase[0]) * (int)erase[3] + col - (int)erase[1];
#pragma unroll 1                             // the numbers of one value take some twenty registers
            for (int channel = 0; channel < channels; ++channel) {
                const COMPUTE_T value = is_noise ? (COMPUTE_T)normal_number(erase[4], (unsigned)(element * channels + channel), quantiles)
                                                 : (COMPUTE_T)erase[4 + (channels <= 4 ? channel : 0)];
                batch[OUT_CHANNELS_LAST ? position * channels + channel : channel * (height * width) + position] = cast_out(value);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(MAX_BLOCK, PROGRAM_BLOCKS) program(
    const unsigned char *__restrict__ images, // (M, H, W, C) or (M, C, H, W)
    const double *__restrict__ samples,       // (N, 6): source row, from, first step, steps, first erase, erases
    const double *__restrict__ steps,         // (K, STEP_COLUMNS)
    const int *__restrict__ lines,
    const double *__restrict__ weights,
    const unsigned char *__restrict__ tables, // (T, 3, 256)
    const unsigned char *__restrict__ made,   // prepare's; null where nothing was prepared
    const double *__restrict__ erases,        // (E, ERASE_COLUMNS); null where nothing is erased
    const float *__restrict__ quantiles,      // (65536,); null without noise
    const COMPUTE_T *__restrict__ mean_c,     // (C,); null without FEATUREWISE_CENTER
    const COMPUTE_T *__restrict__ divisor_c,  // (C,); null without FEATUREWISE_STD
    const double *__restrict__ table,         // (N, NUM_COLUMNS); null without HAS_KERAS
    OUT_T *__restrict__ out,                  // (N, H, W, C) or (N, C, H, W)
    int num_samples, int num_made, int height, int width, double rescale)
{
    __shared__ Steps shared;
    const unsigned char *scratch = made + (long long)num_made * TABLE_BYTES;
    const Tables read = {tables, made, lines, weights, scratch};
    const int num_pixels = height * width, units = (num_pixels + UNIT_PIXELS - 1) / UNIT_PIXELS;
    // The grid is (units, samples): a division of 64 bits takes as long as some pixels.
    for (int sample = blockIdx.y; sample < num_samples; sample += gridDim.y) {
        for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
            const double *numbers = samples + sample * 6LL;
            const int start = unit * UNIT_PIXELS, stop = num_pixels - start < UNIT_PIXELS ? num_pixels : start + UNIT_PIXELS;
            const int num_steps = (int)numbers[3];
            const Levels image = image_of(images, scratch, numbers[1], numbers[0], height, width);
            Finish to = {out + sample * ((long long)num_pixels * CHANNELS), mean_c, divisor_c, rescale, num_pixels};
            __syncthreads();                 // the block may still work on its last unit
            load_steps(shared, steps, (int)numbers[2], num_steps, table, height, width);
            __syncthreads();
            make_pixels(to, shared, num_steps, image, read, start, stop, height, width);
        }
    }
    if (erases == nullptr) return;
    // In loops of their own, so that no register is kept for them above.
    for (int sample = blockIdx.y; sample < num_samples; sample += gridDim.y) {
        for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
            const double *numbers = samples + sample * 6LL, *own_erases = erases + (long long)numbers[4] * ERASE_COLUMNS;
            const int start = unit * UNIT_PIXELS, stop = num_pixels - start < UNIT_PIXELS ? num_pixels : start + UNIT_PIXELS;
            OUT_T *batch = out + sample * ((long long)num_pixels * CHANNELS);
            erase_pixels(batch, own_erases, (int)numbers[5], quantiles, start, stop, height, width, CHANNELS);
        }
    }
}

// Erasing on a batch that is finished already; a block takes one row of a sample.
extern "C" __global__ void __launch_bounds__(MAX_BLOCK) erase(
    const double *__restrict__ samples,       // (N, 6): as program's
    const double *__restrict__ erases,        // (E, ERASE_COLUMNS)
    const float *__restrict__ quantiles,      // (65536,); null without noise
    OUT_T *__restrict__ batch,                // (N, H, W, C) or (N, C, H, W); written within the rectangles
    int num_samples, int height, int width, int channels)
{
    for (long long unit = blockIdx.x; unit < (long long)num_samples * height; unit += gridDim.x) {
        const long long sample = unit / height;
        const int row = (int)(unit % height);
        const double *numbers = samples + sample * 6, *own_erases = erases + (long long)numbers[4] * ERASE_COLUMNS;
        OUT_T *image = batch + sample * ((long long)height * width * channels);
        erase_pixels(image, own_erases, (int)numbers[5], quantiles, row * width, (row + 1) * width, height, width, channels);
    }
}
