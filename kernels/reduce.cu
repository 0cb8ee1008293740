// What a sample's own numbers need before the fused launch: its range after the affine map, its moments after the rescale.
//
// Each block writes the partial result of its band; the kernel that reads them folds the bands (fold_bands in sample.cuh), so a
// reduction costs one launch, uses no atomics and gives the same bits at every run.
// Macros: those of common.cuh. Checked by the launcher as for augment.cu.

// Minimum and maximum over the affine map's output, for the channel shift and for brightness. Compiled with HAS_RANGE 0.
extern "C" __global__ void __launch_bounds__(MAX_BLOCK, MIN_BLOCKS) sample_range(
    const SOURCE_T *__restrict__ images,     // (M, H, W, C) or (M, C, H, W)
    const double *__restrict__ table,        // (N, NUM_COLUMNS)
    double *__restrict__ ranges,             // (N, num_bands, 2): low, high
    int num_samples, int num_images, int height, int width, int channels,
    int rows_per_band, int num_bands, int across_bits,
    double cval)
{
    __shared__ BlockShared shared;
    const Shape shape = {height, width, CHANNELS ? CHANNELS : channels};
    for_each_band(num_samples, num_bands, rows_per_band, height, [&](const Band &band) {
        const long long unit = (long long)band.sample * num_bands + band.index;
        const double *row = table + (long long)band.sample * NUM_COLUMNS;
        if (is_nan(row[CHANNEL_SHIFT]) & is_nan(row[BRIGHTNESS])) {      // this sample's range is not needed
            if (threadIdx.x == 0) ranges[2 * unit] = ranges[2 * unit + 1] = 0.0;
            return;
        }
        open_band(shared, band, shape, images, num_images, table, nullptr, num_bands);
        const SOURCE_T *source = source_of(images, shared.sample, height * width * shape.channels);
        const double infinity = __longlong_as_double(0x7ff0000000000000ll);
        COMPUTE_T low = (COMPUTE_T)infinity, high = (COMPUTE_T)-infinity;
        visit_band<false>(shared, band, shape, across_bits, [&](auto taps_of, int, int, int, bool) {
            auto unchanged = [](COMPUTE_T *, int) {};
            for_each_channel(source, taps_of(), shape, cval, unchanged, [&](int, COMPUTE_T value) {
                low = lesser_or_nan(value, low);
                high = greater_or_nan(value, high);
            });
        });
        const double lowest = block_reduce((double)low, shared.scratch, Lower());
        const double highest = block_reduce((double)high, shared.scratch, Higher());
        if (threadIdx.x == 0) {
            ranges[2 * unit] = lowest;
            ranges[2 * unit + 1] = highest;
        }
    });
}

// Sums over the values after the rescale, seen from the sample's first value: a constant sample then has exactly the
// variance zero, and a far mean costs no digits.
extern "C" __global__ void __launch_bounds__(MAX_BLOCK, MIN_BLOCKS) sample_moments(
    const SOURCE_T *__restrict__ images,     // (M, H, W, C) or (M, C, H, W)
    const double *__restrict__ table,        // (N, NUM_COLUMNS)
    const double *__restrict__ ranges,       // (N, num_bands, 2): sample_range's; null without HAS_RANGE
    double *__restrict__ moments,            // (N, num_bands, 3): sum of value - pivot, of its square, the pivot
    int num_samples, int num_images, int height, int width, int channels,
    int rows_per_band, int num_bands, int across_bits,
    double cval, double rescale)
{
    __shared__ BlockShared shared;
    __shared__ double pivot;
    const Shape shape = {height, width, CHANNELS ? CHANNELS : channels};
    for_each_band(num_samples, num_bands, rows_per_band, height, [&](const Band &band) {
        const long long unit = (long long)band.sample * num_bands + band.index;
        open_band(shared, band, shape, images, num_images, table, ranges, num_bands);
        const SOURCE_T *source = source_of(images, shared.sample, height * width * shape.channels);
        const Sample &sample = shared.sample;
        auto colour = [&](COMPUTE_T *values, int first) { shift_and_brighten(values, sample, first, shape.channels); };
        if (threadIdx.x == 0) {
            visit_first(sample, shape, [&](const auto &taps) {
                for_each_channel(source, taps, shape, cval, colour, [&](int channel, COMPUTE_T value) {
                    if (channel == 0) pivot = preprocess(value, channel, rescale);
                });
            });
        }
        __syncthreads();
        double sum = 0.0, squares = 0.0;
        visit_band<false>(shared, band, shape, across_bits, [&](auto taps_of, int, int, int, bool) {
            for_each_channel(source, taps_of(), shape, cval, colour, [&](int channel, COMPUTE_T value) {
                const double offset = preprocess(value, channel, rescale) - pivot;
                sum += offset;
                squares += offset * offset;
            });
        });
        sum = block_reduce(sum, shared.scratch, Plus());
        squares = block_reduce(squares, shared.scratch, Plus());
        if (threadIdx.x == 0) {
            moments[3 * unit] = sum;
            moments[3 * unit + 1] = squares;
            moments[3 * unit + 2] = pivot;
        }
    });
}
