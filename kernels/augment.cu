// One launch from source images to the finished batch: gather, affine map, flips, channel shift, brightness,
// preprocessing mode, rescale, normalisation, layout and cast, in Keras' order.
//
// Macros: those of common.cuh and the four below. Sizes are arguments.
// Checked by gpuseq/ops/dispatch.py: source indices. By the launcher (gpuseq/ops/cuda/augment.py): H * W * C < 2^31, blockDim.x
// a multiple of TILE_COLS * 2^across_bits and at most MAX_BLOCK, rows_per_band at most MAX_BAND_ROWS.

#ifndef SAMPLEWISE_CENTER        // 1: subtract the sample's mean; `moments` is read for it
#define SAMPLEWISE_CENTER 0
#endif
#ifndef SAMPLEWISE_STD           // 1: divide by the sample's standard deviation + 1e-6
#define SAMPLEWISE_STD 0
#endif
#ifndef FEATUREWISE_CENTER       // 1: subtract mean_c
#define FEATUREWISE_CENTER 0
#endif
#ifndef FEATUREWISE_STD          // 1: divide by divisor_c, which already holds the 1e-6
#define FEATUREWISE_STD 0
#endif

// Bytes that are only moved and cast: eight blocks, at most 32 registers, as many threads as a multiprocessor holds.
#define IS_NORMALISED (SAMPLEWISE_CENTER || SAMPLEWISE_STD || FEATUREWISE_CENTER || FEATUREWISE_STD)
#define IS_COPY (!HAS_AFFINE && !HAS_CHANNEL_SHIFT && !HAS_BRIGHTNESS && !IS_NORMALISED && !IS_FLOAT_SOURCE && CHANNELS >= 1)
#define AUGMENT_BLOCKS (IS_COPY ? 8 : MIN_BLOCKS)

#define MAX_STAGED_CHANNELS 16
#define IS_STAGED (OUT_CHANNELS_LAST && CHANNELS > 1 && CHANNELS <= MAX_STAGED_CHANNELS)

// What becomes of channel `channel` of the batch after its colours.
DEVICE OUT_T finish(COMPUTE_T value, int channel, const Sample &sample, const COMPUTE_T *mean_c, const COMPUTE_T *divisor_c,
                    double rescale)
{
    value = preprocess(value, channel, rescale);
#if SAMPLEWISE_CENTER
    value -= sample.mean;
#endif
#if SAMPLEWISE_STD
    value /= sample.divisor;
#endif
#if FEATUREWISE_CENTER
    value -= mean_c[channel];
#endif
#if FEATUREWISE_STD
    value /= divisor_c[channel];
#endif
    return cast_out(value);
}

extern "C" __global__ void __launch_bounds__(MAX_BLOCK, AUGMENT_BLOCKS) augment(
    const SOURCE_T *__restrict__ images,     // (M, H, W, C) or (M, C, H, W)
    const double *__restrict__ table,        // (N, NUM_COLUMNS)
    const double *__restrict__ ranges,       // (N, num_bands, 2): sample_range's; null without HAS_RANGE
    const double *__restrict__ moments,      // (N, num_bands, 3): sample_moments'; null without SAMPLEWISE_*
    const COMPUTE_T *__restrict__ mean_c,    // (C,); null without FEATUREWISE_CENTER
    const COMPUTE_T *__restrict__ divisor_c, // (C,); null without FEATUREWISE_STD
    OUT_T *__restrict__ out,                 // (N, H, W, C) or (N, C, H, W); does not overlap `images`
    int num_samples, int num_images, int height, int width, int channels,
    int rows_per_band, int num_bands, int across_bits,
    double cval, double rescale)
{
    __shared__ BlockShared shared;
#if IS_STAGED
    DYNAMIC_SHARED(OUT_T, stage);            // (blockDim.x, C): a group's pixels leave in the order of the addresses
#endif
    const Shape shape = {height, width, CHANNELS ? CHANNELS : channels};
    const int sample_size = height * width * shape.channels;
    for_each_band(num_samples, num_bands, rows_per_band, height, [&](const Band &band) {
        open_band(shared, band, shape, images, num_images, table, ranges, num_bands);
#if SAMPLEWISE_CENTER || SAMPLEWISE_STD
        if (threadIdx.x == 0) {
            const double *partials = moments + (long long)band.sample * num_bands * 3;
            const double sum = fold_bands(partials, num_bands, 3, 0, Plus()), squares = fold_bands(partials, num_bands, 3, 1, Plus());
            const double offset = sum / sample_size;     // the mean, seen from the pivot
            const double variance = squares / sample_size - offset * offset;
            shared.sample.mean = (COMPUTE_T)(partials[2] + offset);
            shared.sample.divisor = (COMPUTE_T)sqrt(variance > 0.0 ? variance : 0.0) + (COMPUTE_T)1e-6;
        }
        __syncthreads();
#endif
        const SOURCE_T *source = source_of(images, shared.sample, sample_size);
        auto colour = [&](COMPUTE_T *values, int first) { shift_and_brighten(values, shared.sample, first, shape.channels); };
        // Where the band's first row begins (in its first channel).
        const int row_values = OUT_CHANNELS_LAST ? width * shape.channels : width;
        OUT_T *rows = kept(out + (long long)band.sample * sample_size + band.first_row * row_values);
        visit_band<IS_STAGED>(shared, band, shape, across_bits, [&](auto taps_of, int local, int tile, int col, bool is_inside) {
#if IS_STAGED
            const int lane = col - tile;
            OUT_T *group_stage = stage + (threadIdx.x - lane) * CHANNELS;
            if (is_inside) {
                for_each_channel(source, taps_of(), shape, cval, colour, [&](int channel, COMPUTE_T value) {
                    group_stage[lane * CHANNELS + channel] = finish(value, channel, shared.sample, mean_c, divisor_c, rescale);
                });
            }
            __syncwarp();
            OUT_T *segment = rows + ((local * width + tile) * CHANNELS + lane);
            const OUT_T *staged = group_stage + lane;
            const int num_values = local < band.num_rows ? (width - tile) * CHANNELS - lane : 0;
#pragma unroll STEP
            for (int at = 0; at < TILE_COLS * CHANNELS; at += TILE_COLS) {
                if (at < num_values) segment[at] = staged[at];
            }
            __syncwarp();
#else
            const int pixel = local * width + col;
            OUT_T *target = rows + (OUT_CHANNELS_LAST ? pixel * shape.channels : pixel);
            const int step = OUT_CHANNELS_LAST ? 1 : height * width;
            for_each_channel(source, taps_of(), shape, cval, colour, [&](int channel, COMPUTE_T value) {
                target[channel * step] = finish(value, channel, shared.sample, mean_c, divisor_c, rescale);
            });
#endif
        });
    });
}
