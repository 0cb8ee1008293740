// One sample: its numbers, its colours, and how a block walks over its pixels.

struct Sample {                  // one per block, in shared memory
    long long source_index;
    double inverse_23[2][3];     // (row, col) of the batch -> (row, col) of the source
    bool has_affine, flip_rows, flip_cols;
    bool has_channel_shift, has_brightness, stretch;
    COMPUTE_T channel_shift;
    COMPUTE_T low, high;         // range after the affine map: what the channel shift clips to
    COMPUTE_T shifted_low, shifted_span;   // range after the channel shift: what brightness stretches to 0..255 and back
    float stretch_low, stretch_span;       // the same as Keras' float32 image sees it
    float brightness;
    COMPUTE_T mean, divisor;     // samplewise normalisation; augment.cu fills and reads them
};

// ---------------------------------------------------------------------------------------------------- colour
// Keras' apply_channel_shift and apply_brightness_shift(scale=False) of one value.
DEVICE COMPUTE_T shift_and_brighten(COMPUTE_T value, const Sample &sample, bool is_alpha)
{
#if HAS_CHANNEL_SHIFT
    if (sample.has_channel_shift) {
        value += sample.channel_shift;
        value = value < sample.low ? sample.low : value > sample.high ? sample.high : value;
    }
#endif
#if HAS_BRIGHTNESS
    if (sample.has_brightness) {
        float level = (float)value;
        if (sample.stretch) {
            level -= sample.stretch_low;
            if (sample.stretch_span != 0.0f) level /= sample.stretch_span;
            level *= 255.0f;
        }
        level = truncf(level);                       // Keras makes a uint8 image of it
        if (!is_alpha) {                             // Pillow's blend with black leaves alpha alone
            level = truncf(sample.brightness * level);
            level = level < 0.0f ? 0.0f : level > 255.0f ? 255.0f : level;
        }
        value = (COMPUTE_T)level;
        if (sample.stretch) value = (COMPUTE_T)level / (COMPUTE_T)255.0 * sample.shifted_span + sample.shifted_low;
    }
#endif
    return value;
}

// Keras' imagenet_utils modes for channel `channel` of the batch, then the rescale.
DEVICE COMPUTE_T preprocess(COMPUTE_T value, int channel, double rescale)
{
#if PREPROCESS == 1
    value /= (COMPUTE_T)127.5;
    value -= (COMPUTE_T)1.0;
#elif PREPROCESS == 2
    value -= (COMPUTE_T)(channel == 0 ? 103.939 : channel == 1 ? 116.779 : channel == 2 ? 123.68 : 0.0);
#elif PREPROCESS == 3
    value /= (COMPUTE_T)255.0;
    value -= (COMPUTE_T)(channel == 0 ? 0.485 : channel == 1 ? 0.456 : channel == 2 ? 0.406 : 0.0);
    value /= (COMPUTE_T)(channel == 0 ? 0.229 : channel == 1 ? 0.224 : channel == 2 ? 0.225 : 1.0);
#endif
#if HAS_RESCALE
    value *= (COMPUTE_T)rescale;
#endif
    return value;
}

// The source channel that channel `channel` of the batch shows: caffe's are in reverse.
DEVICE int source_channel(int channel, int channels) { return PREPROCESS == 2 ? channels - 1 - channel : channel; }

// Calls use(channel, value) for the channels of the batch at one pixel; the value is the affine map's.
template <class Tap, class Use>
DEVICE void for_each_channel(const SOURCE_T *__restrict__ source, const Tap &taps, Shape shape, double cval, Use use)
{
    COMPUTE_T values[STEP];
    if (STEP > 1) {
        read_channels(source, taps, shape, cval, values);
#pragma unroll
        for (int channel = 0; channel < STEP; ++channel) use(channel, values[source_channel(channel, STEP)]);
    } else {
        for (int channel = 0; channel < shape.channels; ++channel) {
            const int from = source_channel(channel, shape.channels);
            read_channels(source + from * source_channel_stride(shape), taps, shape, cval, values);
            use(channel, values[0]);
        }
    }
}

// ---------------------------------------------------------------------------------------------------- work of a block
// A unit of work is one band of rows of one sample. Inside it the block is made of groups of `tile_cols` threads, each
// group a piece of a row; `groups_across` of them lie side by side, the others below. A thread keeps its column while its
// group steps down the band, so the column's half of the map is computed once. The groups of one warp lie below each
// other: a turned patch of 8 x 4 pixels reads fewer cache lines than a turned row of 32.
struct Band {
    int sample, first_row, num_rows;
};

DEVICE Band band_of(long long unit, int num_bands, int rows_per_band, int height)
{
    Band band;
    band.sample = (int)(unit / num_bands);
    band.first_row = (int)(unit % num_bands) * rows_per_band;
    band.num_rows = height - band.first_row < rows_per_band ? height - band.first_row : rows_per_band;
    return band;
}

struct alignas(16) MapTerms {    // one row's or one column's share of a source position
    double row, col;
};

struct BlockShared {
    MapTerms rows[MAX_BAND_ROWS];        // offset + row * matrix, by row of the band
    Sample sample;
    double scratch[MAX_BLOCK];           // of block_reduce
};

struct Plus {
    __device__ double operator()(double a, double b) const { return a + b; }
};
struct Lower {
    __device__ double operator()(double a, double b) const { return b < a ? b : a; }
};
struct Higher {
    __device__ double operator()(double a, double b) const { return b > a ? b : a; }
};

// Over the whole block, for every thread, right at any block size: each round folds the upper half onto the lower.
template <class Fold> DEVICE double block_reduce(double value, double *scratch, Fold fold)
{
    __syncthreads();                     // `scratch` may still be read from the call before
    scratch[threadIdx.x] = value;
    __syncthreads();
    for (unsigned live = blockDim.x; live > 1;) {
        const unsigned half = (live + 1) / 2;
        if (threadIdx.x + half < live) scratch[threadIdx.x] = fold(scratch[threadIdx.x], scratch[threadIdx.x + half]);
        live = half;
        __syncthreads();
    }
    return scratch[0];
}

// One of the `num_parts` interleaved partial results of every band of a sample, folded over its bands.
template <class Fold>
DEVICE double fold_bands(const double *partials, int num_bands, int num_parts, int part, double start, double *scratch, Fold fold)
{
    double value = start;
    for (int band = threadIdx.x; band < num_bands; band += blockDim.x) value = fold(value, partials[band * num_parts + part]);
    return block_reduce(value, scratch, fold);
}

// Fills `shared` for a band: the sample's numbers by one thread, the rows' terms by all. Starts and ends with a barrier.
DEVICE void open_band(BlockShared &shared, const Band &band, Shape shape, const double *table, const double *ranges, int num_bands)
{
    Sample &sample = shared.sample;
    __syncthreads();                     // the block may still work on its last band
#if HAS_RANGE
    const double *partials = ranges + (long long)band.sample * num_bands * 2;
    const double low = fold_bands(partials, num_bands, 2, 0, partials[0], shared.scratch, Lower());
    const double high = fold_bands(partials, num_bands, 2, 1, partials[1], shared.scratch, Higher());
#endif
    if (threadIdx.x == 0) {
#if HAS_TABLE
        const double *row = table + (long long)band.sample * NUM_COLUMNS;
        sample.source_index = __double_as_longlong(row[SOURCE_INDEX]);
        sample.flip_rows = HAS_FLIP && row[FLIP_VERTICAL] != 0.0;
        sample.flip_cols = HAS_FLIP && row[FLIP_HORIZONTAL] != 0.0;
        sample.has_affine = HAS_AFFINE && (row[THETA] != 0.0 || row[TX] != 0.0 || row[TY] != 0.0 || row[SHEAR] != 0.0
                                           || row[ZX] != 1.0 || row[ZY] != 1.0);
        if (sample.has_affine) build_inverse(row, shape.height, shape.width, sample.inverse_23);
        sample.has_channel_shift = HAS_CHANNEL_SHIFT && !is_nan(row[CHANNEL_SHIFT]);
        sample.has_brightness = HAS_BRIGHTNESS && !is_nan(row[BRIGHTNESS]);
        sample.channel_shift = (COMPUTE_T)row[CHANNEL_SHIFT];
        sample.brightness = (float)row[BRIGHTNESS];
#else
        sample.source_index = band.sample;
        sample.flip_rows = sample.flip_cols = sample.has_affine = sample.has_channel_shift = sample.has_brightness = false;
#endif
        sample.stretch = false;
#if HAS_RANGE
        sample.low = (COMPUTE_T)low;
        sample.high = (COMPUTE_T)high;
        COMPUTE_T shifted_low = sample.low, shifted_high = sample.high;
        if (sample.has_channel_shift) {  // monotone, so the range of the shifted is the shifted range
            shifted_low += sample.channel_shift;
            shifted_low = shifted_low < sample.low ? sample.low : shifted_low > sample.high ? sample.high : shifted_low;
            shifted_high += sample.channel_shift;
            shifted_high = shifted_high < sample.low ? sample.low : shifted_high > sample.high ? sample.high : shifted_high;
        }
        sample.stretch = shifted_low < (COMPUTE_T)0.0 || shifted_high > (COMPUTE_T)255.0;
        sample.shifted_low = shifted_low;
        sample.shifted_span = shifted_high - shifted_low;
        sample.stretch_low = (float)shifted_low;
        sample.stretch_span = (float)shifted_high - (float)shifted_low;
#endif
    }
    __syncthreads();
    if (!sample.has_affine) return;      // the same for the whole block
    for (int local = threadIdx.x; local < band.num_rows; local += blockDim.x) {
        const int flipped = sample.flip_rows ? shape.height - 1 - (band.first_row + local) : band.first_row + local;
        shared.rows[local].row = sample.inverse_23[0][2] + flipped * sample.inverse_23[0][0];
        shared.rows[local].col = sample.inverse_23[1][2] + flipped * sample.inverse_23[1][0];
    }
    __syncthreads();
}

struct Tiling {
    int tile_cols, groups_across;
};

// Calls visit(taps_of, row, tile, col, is_inside) for the band's pixels, where `tile` is the group's first column and
// taps_of() says where the pixel reads. Every thread of the block makes the same number of calls, so `visit` may hold
// barriers; where `is_inside` is false the thread has no pixel and taps_of must not be called.
template <class TapsOfColumn, class Visit>
DEVICE void walk_band(const Band &band, Shape shape, Tiling tiling, TapsOfColumn taps_of_column, Visit visit)
{
    const int lane = threadIdx.x % tiling.tile_cols, group = threadIdx.x / tiling.tile_cols;
    const int groups_down = blockDim.x / tiling.tile_cols / tiling.groups_across;
    const int stacked = groups_down % (32 / tiling.tile_cols) == 0 ? 32 / tiling.tile_cols : 1;
    const int across = group / stacked % tiling.groups_across;
    const int down = group / stacked / tiling.groups_across * stacked + group % stacked;
    for (int first_col = 0; first_col < shape.width; first_col += tiling.tile_cols * tiling.groups_across) {
        const int tile = first_col + across * tiling.tile_cols, col = tile + lane;
        const auto taps_of_row = taps_of_column(col);
        for (int first = 0; first < band.num_rows; first += groups_down) {
            const int local = first + down;
            visit([&] { return taps_of_row(local); }, band.first_row + local, tile, col,
                  local < band.num_rows && col < shape.width);
        }
    }
}

template <class Visit>
DEVICE void visit_band(const BlockShared &shared, const Band &band, Shape shape, Tiling tiling, Visit visit)
{
    const Sample &sample = shared.sample;
    const bool flip_rows = HAS_FLIP && sample.flip_rows, flip_cols = HAS_FLIP && sample.flip_cols;
    if (HAS_AFFINE && sample.has_affine) {           // the same for the whole block, so each way has its own loop
        walk_band(band, shape, tiling, [&](int col) {
            const int source_col = flip_cols ? shape.width - 1 - col : col;
            const MapTerms terms = {source_col * sample.inverse_23[0][1], source_col * sample.inverse_23[1][1]};
            return [&shared, shape, terms](int local) {
                const MapTerms row_terms = shared.rows[local];
                return find_taps(row_terms.row + terms.row, row_terms.col + terms.col, shape);
            };
        }, visit);
    } else {
        walk_band(band, shape, tiling, [&](int col) {
            const int source_col = flip_cols ? shape.width - 1 - col : col;
            return [&band, shape, flip_rows, source_col](int local) {
                const int row = band.first_row + local;
                return copy_tap(flip_rows ? shape.height - 1 - row : row, source_col, shape);
            };
        }, visit);
    }
}

// Calls visit(taps) for the first pixel of the sample.
template <class Visit> DEVICE void visit_first(const Sample &sample, Shape shape, Visit visit)
{
    const int row = sample.flip_rows ? shape.height - 1 : 0, col = sample.flip_cols ? shape.width - 1 : 0;
    const double (*inverse_23)[3] = sample.inverse_23;
    if (HAS_AFFINE && sample.has_affine) {
        visit(find_taps((inverse_23[0][2] + row * inverse_23[0][0]) + col * inverse_23[0][1],
                        (inverse_23[1][2] + row * inverse_23[1][0]) + col * inverse_23[1][1], shape));
    } else {
        visit(copy_tap(row, col, shape));
    }
}
