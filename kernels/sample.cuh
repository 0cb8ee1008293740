// One sample: its numbers, its colours, and how a block visits its pixels.

struct alignas(16) Sample {      // one per block, in shared memory; a pixel reads the first four at once
    COMPUTE_T channel_shift;     // where there is none it is -0.0, which changes no value, and clips to nothing
    COMPUTE_T shift_low, shift_high;       // range after the affine map: what the channel shift clips to
    float brightness;
    int brightening;             // one of Brightening
    COMPUTE_T shifted_low, shifted_span;   // range after the channel shift: what brightness stretches to 0..255 and back
    float stretch_low, stretch_span;       // the same as Keras' float32 image sees it
    COMPUTE_T mean, divisor;     // samplewise normalisation; augment.cu fills and reads them
    long long source_index;
    double inverse_23[2][3];     // (row, col) of the batch -> (row, col) of the source
    bool has_affine, flip_rows, flip_cols;
    Start start;
};

enum Brightening { AS_IT_IS, WITHIN_BYTES, STRETCHED };      // STRETCHED: the sample leaves 0..255 and is brought there first

// ---------------------------------------------------------------------------------------------------- colour
// Whether the affine map can give a NaN: those of a float source, or a fill value. Else a minimum and a maximum clip, one
// instruction each; they would lose a NaN, which NumPy keeps.
constexpr bool CAN_BE_NAN = IS_FLOAT_SOURCE || (HAS_AFFINE && FILL_MODE == FILL_CONSTANT);

DEVICE float lesser(float a, float b) { return fminf(a, b); }
DEVICE float greater(float a, float b) { return fmaxf(a, b); }
DEVICE double lesser(double a, double b) { return a < b ? a : b; }
DEVICE double greater(double a, double b) { return a > b ? a : b; }

template <class T> DEVICE T clipped(T value, T low, T high)
{
    if (CAN_BE_NAN) return value < low ? low : value > high ? high : value;
    return lesser(greater(value, low), high);
}

// The less and the greater of two as NumPy's min and max have them: a NaN stays, whichever of the two it is.
template <class T> DEVICE T lesser_or_nan(T value, T low)
{
    if (CAN_BE_NAN) return value < low || value != value ? value : low;
    return lesser(value, low);
}
template <class T> DEVICE T greater_or_nan(T value, T high)
{
    if (CAN_BE_NAN) return value > high || value != value ? value : high;
    return greater(value, high);
}

// Keras' apply_brightness_shift(scale=False) of one value.
template <bool IS_STRETCHED> DEVICE COMPUTE_T brightened(COMPUTE_T value, const Sample &sample, bool is_alpha)
{
    float level = (float)value;
    if (IS_STRETCHED) {
        level -= sample.stretch_low;
        if (sample.stretch_span != 0.0f) level /= sample.stretch_span;
        level *= 255.0f;
    }
    level = CAN_BE_NAN && level != level ? 0.0f : truncf(level);     // Keras makes a uint8 image of it, NumPy of NaN a 0
    // Pillow's blend with black leaves alpha alone.
    if (!is_alpha) level = clipped(truncf(sample.brightness * level), 0.0f, 255.0f);
    return IS_STRETCHED ? (COMPUTE_T)level / (COMPUTE_T)255.0 * sample.shifted_span + sample.shifted_low : (COMPUTE_T)level;
}

// Keras' apply_channel_shift and apply_brightness_shift of STEP channels of one pixel, from source channel `first` on. The
// sample is asked once for all of them.
DEVICE void shift_and_brighten(COMPUTE_T *values, const Sample &sample, int first, int channels)
{
#if HAS_CHANNEL_SHIFT
#pragma unroll
    for (int k = 0; k < STEP; ++k) values[k] = clipped(values[k] + sample.channel_shift, sample.shift_low, sample.shift_high);
#endif
#if HAS_BRIGHTNESS
    if (sample.brightening == WITHIN_BYTES) {
#pragma unroll
        for (int k = 0; k < STEP; ++k) values[k] = brightened<false>(values[k], sample, channels == 4 && first + k == 3);
    } else if (sample.brightening == STRETCHED) {
#pragma unroll
        for (int k = 0; k < STEP; ++k) values[k] = brightened<true>(values[k], sample, channels == 4 && first + k == 3);
    }
#endif
}

// Calls use(channel, value) for the channels of the batch at one pixel. change(values, first) has had the affine map's values
// before, STEP of them from source channel `first` on.
template <class Tap, class Change, class Use>
DEVICE void for_each_channel(const SOURCE_T *__restrict__ source, const Tap &taps, Shape shape, double cval, Change change, Use use)
{
    COMPUTE_T values[STEP];
    if (STEP > 1) {
        read_channels(source, taps, shape, cval, values);
        change(values, 0);
#pragma unroll
        for (int channel = 0; channel < STEP; ++channel) use(channel, values[source_channel(channel, STEP)]);
    } else {
        for (int channel = 0; channel < shape.channels; ++channel) {
            const int from = source_channel(channel, shape.channels);
            read_channels(source + from * source_channel_stride(shape), taps, shape, cval, values);
            change(values, from);
            use(channel, values[0]);
        }
    }
}

// ---------------------------------------------------------------------------------------------------- work of a block
// A unit of work is one band of rows of one sample. Inside it the block is made of groups of TILE_COLS threads, each group a
// piece of a row; 2^across_bits of them lie side by side, the others below. A thread keeps its column while its
// group steps down the band, so the column's half of the map is computed once. The groups of one warp lie below each
// other: a turned patch of 8 x 4 pixels reads fewer cache lines than a turned row of 32.
struct Band {
    int sample, index, first_row, num_rows;
};

// Calls work(band) for every band of every sample. The grid is (bands, samples), so that neither number costs a division; a
// smaller grid goes round in strides.
template <class Work> DEVICE void for_each_band(int num_samples, int num_bands, int rows_per_band, int height, Work work)
{
    for (unsigned sample = blockIdx.y; sample < (unsigned)num_samples; sample += gridDim.y) {
        for (unsigned index = blockIdx.x; index < (unsigned)num_bands; index += gridDim.x) {
            Band band;
            band.sample = (int)sample;
            band.index = (int)index;
            band.first_row = band.index * rows_per_band;
            band.num_rows = height - band.first_row < rows_per_band ? height - band.first_row : rows_per_band;
            work(band);
        }
    }
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
    __device__ double operator()(double a, double b) const { return lesser_or_nan(b, a); }
};
struct Higher {
    __device__ double operator()(double a, double b) const { return greater_or_nan(b, a); }
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

// One of the `num_parts` interleaved partial results of every band of a sample, folded over its bands in their order. For one
// thread: bands are few, and a fold by the block would take sixteen barriers.
template <class Fold> DEVICE double fold_bands(const double *partials, int num_bands, int num_parts, int part, Fold fold)
{
    double value = partials[part];
    for (int band = 1; band < num_bands; ++band) value = fold(value, partials[band * num_parts + part]);
    return value;
}

#if HAS_RANGE || HAS_BRIGHTNESS
// What the sample's row and its range after the affine map say of its colours.
DEVICE void set_colour(Sample &sample, const double *row, double low, double high)
{
    COMPUTE_T shifted_low = (COMPUTE_T)low, shifted_high = (COMPUTE_T)high;
    const double infinity = __longlong_as_double(0x7ff0000000000000ll);
    sample.channel_shift = (COMPUTE_T)-0.0;
    sample.shift_low = (COMPUTE_T)-infinity;
    sample.shift_high = (COMPUTE_T)infinity;
    if (HAS_CHANNEL_SHIFT && !is_nan(row[CHANNEL_SHIFT])) {
        sample.channel_shift = (COMPUTE_T)row[CHANNEL_SHIFT];
        sample.shift_low = (COMPUTE_T)low;
        sample.shift_high = (COMPUTE_T)high;
        if (CAN_BE_NAN && is_nan(low)) sample.channel_shift = (COMPUTE_T)low;       // NumPy's clip to NaN leaves nothing else
        // Monotone, so the range of the shifted is the shifted range.
        shifted_low = clipped(shifted_low + sample.channel_shift, sample.shift_low, sample.shift_high);
        shifted_high = clipped(shifted_high + sample.channel_shift, sample.shift_low, sample.shift_high);
    }
    const bool is_outside = HAS_RANGE && (shifted_low < (COMPUTE_T)0.0 || shifted_high > (COMPUTE_T)255.0);
    sample.brightness = (float)row[BRIGHTNESS];
    sample.brightening = is_nan(row[BRIGHTNESS]) ? AS_IT_IS : is_outside ? STRETCHED : WITHIN_BYTES;
    sample.shifted_low = shifted_low;
    sample.shifted_span = shifted_high - shifted_low;
    sample.stretch_low = (float)shifted_low;
    sample.stretch_span = (float)shifted_high - (float)shifted_low;
}
#endif

// What the sample's row says of where its pixels come from.
DEVICE void set_geometry(Sample &sample, const double *row, Shape shape)
{
    sample.flip_rows = HAS_FLIP && row[FLIP_VERTICAL] != 0.0;
    sample.flip_cols = HAS_FLIP && row[FLIP_HORIZONTAL] != 0.0;
    // One thread does this while the block waits: it asks for all of its row at once, where one condition after the other
    // would wait for each number, and builds the map whether it is needed or not.
    sample.has_affine = HAS_AFFINE && ((row[THETA] != 0.0) | (row[TX] != 0.0) | (row[TY] != 0.0) | (row[SHEAR] != 0.0)
                                       | (row[ZX] != 1.0) | (row[ZY] != 1.0));
    if (HAS_AFFINE) build_inverse(row, shape.height, shape.width, sample.inverse_23);
}

// Where a source image begins. The words about its taps reach up to three bytes before it and nine behind it, so that of an array's
// last image, and of a first one that begins within a word, only bytes are read. Pixels of four channels are words themselves.
DEVICE Start start_of(const SOURCE_T *images, int num_images, long long index, Shape shape)
{
    Start start = {};
    const bool is_aligned = ((size_t)images & 3) == 0;
    if (CHANNELS == 4) {
        start.in_words = is_aligned;
    } else {
        const long long size = shape.height * shape.width * shape.channels;
        start.lead = (unsigned)(size_t)(images + index * size) & 3;
        start.in_words = (is_aligned || index > 0) && (num_images - 1 - index) * size >= 9;
    }
    return start;
}

DEVICE Start start_in(const Sample &sample) { return IN_WORDS ? sample.start : Start{}; }

// What a sample is read from: see `Start`.
DEVICE const SOURCE_T *source_of(const SOURCE_T *images, const Sample &sample, int sample_size)
{
    return kept(images + (sample.source_index * sample_size - start_in(sample).lead));
}

// Fills `shared` for a band: the sample's numbers by one thread, the rows' terms by all. Starts and ends with a barrier.
DEVICE void open_band(BlockShared &shared, const Band &band, Shape shape, const SOURCE_T *images, int num_images,
                      const double *table, const double *ranges, int num_bands)
{
    Sample &sample = shared.sample;
    __syncthreads();                     // the block may still work on its last band
    if (threadIdx.x == 0) {
#if HAS_TABLE
        const double *row = table + (long long)band.sample * NUM_COLUMNS;
        sample.source_index = __double_as_longlong(row[SOURCE_INDEX]);
        set_geometry(sample, row, shape);
#else
        sample.source_index = band.sample;
        sample.flip_rows = sample.flip_cols = sample.has_affine = false;
#endif
        if (IN_WORDS) sample.start = start_of(images, num_images, sample.source_index, shape);
#if HAS_RANGE
        const double *partials = ranges + (long long)band.sample * num_bands * 2;
        const double low = fold_bands(partials, num_bands, 2, 0, Lower()), high = fold_bands(partials, num_bands, 2, 1, Higher());
        set_colour(sample, table + (long long)band.sample * NUM_COLUMNS, low, high);
#elif HAS_BRIGHTNESS
        set_colour(sample, table + (long long)band.sample * NUM_COLUMNS, 0.0, 255.0);    // as the launcher promises
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

constexpr int log2_of(int power) { return power > 1 ? 1 + log2_of(power / 2) : 0; }
constexpr int TILE_BITS = log2_of(TILE_COLS);

// Calls visit(taps_of, local, tile, col, is_inside) for the band's pixels, where `local` counts its rows, `tile` is the group's first column and
// taps_of() says where the pixel reads. IN_STEP: every thread of the block makes the same number of calls, so `visit` may
// hold barriers; where `is_inside` is false the thread has no pixel and taps_of must not be called.
template <bool IN_STEP, class TapsOfColumn, class Visit>
DEVICE void step_down_band(const Band &band, Shape shape, int across_bits, TapsOfColumn taps_of_column, Visit visit)
{
    const int lane = threadIdx.x & (TILE_COLS - 1), group = threadIdx.x >> TILE_BITS;
    const int groups_down = blockDim.x >> (TILE_BITS + across_bits);
    const int stacked_bits = (groups_down << TILE_BITS & 31) == 0 ? 5 - TILE_BITS : 0;
    const int across = group >> stacked_bits & ((1 << across_bits) - 1);
    const int down = (group >> (stacked_bits + across_bits) << stacked_bits) + (group & ((1 << stacked_bits) - 1));
    const int first_tile = across << TILE_BITS, cols = TILE_COLS << across_bits;
    for (int tile = first_tile; (IN_STEP ? tile - first_tile : tile + lane) < shape.width; tile += cols) {
        const int col = tile + lane;
        const auto taps_of_row = taps_of_column(col);
        if (IN_STEP) {
            for (int local = down; local - down < band.num_rows; local += groups_down) {
                visit([&] { return taps_of_row(local); }, local, tile, col,
                      local < band.num_rows && col < shape.width);
            }
        } else {
            for (int local = down; local < band.num_rows; local += groups_down) {
                visit([&] { return taps_of_row(local); }, local, tile, col, true);
            }
        }
    }
}

template <bool IN_STEP, class Visit>
DEVICE void visit_band(const BlockShared &shared, const Band &band, Shape shape, int across_bits, Visit visit)
{
    const Sample &sample = shared.sample;
    const bool flip_rows = HAS_FLIP && sample.flip_rows, flip_cols = HAS_FLIP && sample.flip_cols;
    const Start start = start_in(sample);
    if (HAS_AFFINE && sample.has_affine) {           // the same for the whole block, so each way has its own loop
        step_down_band<IN_STEP>(band, shape, across_bits, [&](int col) {
            const int source_col = flip_cols ? shape.width - 1 - col : col;
            const MapTerms terms = {source_col * sample.inverse_23[0][1], source_col * sample.inverse_23[1][1]};
            return [&shared, shape, terms, start](int local) {
                const MapTerms row_terms = shared.rows[local];
                return find_taps(row_terms.row + terms.row, row_terms.col + terms.col, shape, start);
            };
        }, visit);
    } else {
        step_down_band<IN_STEP>(band, shape, across_bits, [&](int col) {
            const int source_col = flip_cols ? shape.width - 1 - col : col;
            return [&band, shape, flip_rows, source_col, start](int local) {
                const int row = band.first_row + local;
                return copy_tap(flip_rows ? shape.height - 1 - row : row, source_col, shape, start);
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
                        (inverse_23[1][2] + row * inverse_23[1][0]) + col * inverse_23[1][1], shape, start_in(sample)));
    } else {
        visit(copy_tap(row, col, shape, start_in(sample)));
    }
}
