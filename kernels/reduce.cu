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
    int num_samples, int height, int width, int channels,
    int rows_per_band, int num_bands, int tile_cols, int groups_across,
    double cval)
{
    __shared__ BlockShared shared;
    const Shape shape = {height, width, CHANNELS ? CHANNELS : channels};
    const long long num_units = (long long)num_samples * num_bands;
    for (long long unit = blockIdx.x; unit < num_units; unit += gridDim.x) {
        const Band band = band_of(unit, num_bands, rows_per_band, height);
        open_band(shared, band, shape, table, nullptr, num_bands);
        const SOURCE_T *source = images + shared.sample.source_index * (height * width * shape.channels);
        const double infinity = __longlong_as_double(0x7ff0000000000000ll);
        double low = infinity, high = -infinity;
        visit_band(shared, band, shape, {tile_cols, groups_across}, [&](auto taps_of, int, int, int, bool is_inside) {
            if (!is_inside) return;
            for_each_channel(source, taps_of(), shape, cval, [&](int, COMPUTE_T value) {
                low = value < low ? value : low;
                high = value > high ? value : high;
            });
        });
        low = block_reduce(low, shared.scratch, Lower());
        high = block_reduce(high, shared.scratch, Higher());
        if (threadIdx.x == 0) {
            ranges[2 * unit] = low;
            ranges[2 * unit + 1] = high;
        }
    }
}

// Sums over the values after the rescale, seen from the sample's first value: a constant sample then has exactly the
// variance zero, and a far mean costs no digits.
extern "C" __global__ void __launch_bounds__(MAX_BLOCK, MIN_BLOCKS) sample_moments(
    const SOURCE_T *__restrict__ images,     // (M, H, W, C) or (M, C, H, W)
    const double *__restrict__ table,        // (N, NUM_COLUMNS)
    const double *__restrict__ ranges,       // (N, num_bands, 2): sample_range's; null without HAS_RANGE
    double *__restrict__ moments,            // (N, num_bands, 3): sum of value - pivot, of its square, the pivot
    int num_samples, int height, int width, int channels,
    int rows_per_band, int num_bands, int tile_cols, int groups_across,
    double cval, double rescale)
{
    __shared__ BlockShared shared;
    __shared__ double pivot;
    const Shape shape = {height, width, CHANNELS ? CHANNELS : channels};
    const long long num_units = (long long)num_samples * num_bands;
    for (long long unit = blockIdx.x; unit < num_units; unit += gridDim.x) {
        const Band band = band_of(unit, num_bands, rows_per_band, height);
        open_band(shared, band, shape, table, ranges, num_bands);
        const SOURCE_T *source = images + shared.sample.source_index * (height * width * shape.channels);
        const Sample &sample = shared.sample;
        auto rescaled = [&](int channel, COMPUTE_T value) {
            value = shift_and_brighten(value, sample, shape.channels == 4 && source_channel(channel, 4) == 3);
            return preprocess(value, channel, rescale);
        };
        if (threadIdx.x == 0) {
            visit_first(sample, shape, [&](const auto &taps) {
                for_each_channel(source, taps, shape, cval, [&](int channel, COMPUTE_T value) {
                    if (channel == 0) pivot = rescaled(channel, value);
                });
            });
        }
        __syncthreads();
        double sum = 0.0, squares = 0.0;
        visit_band(shared, band, shape, {tile_cols, groups_across}, [&](auto taps_of, int, int, int, bool is_inside) {
            if (!is_inside) return;
            for_each_channel(source, taps_of(), shape, cval, [&](int channel, COMPUTE_T value) {
                const double offset = rescaled(channel, value) - pivot;
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
    }
}
