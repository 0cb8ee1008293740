// What augment.cu and reduce.cu share: the macros, the table of a sample, the affine sampling, the colour chain.
//
// This text is pasted before every kernel file (see README.md), so a kernel file is one translation unit without an
// include path. Axis letters: N samples, H rows, W columns, C channels. Every array is C-contiguous and every argument
// has been checked by the launcher: nothing here checks again.
//
// Two rules keep the pixels equal to SciPy's and Keras': the file is compiled without FMA contraction, and every
// expression in double is written in the order in which SciPy evaluates it.

// ---------------------------------------------------------------------------------------------------- macros
#ifndef SOURCE_T                 // element type of the source images: unsigned char, unsigned short, float, double
#define SOURCE_T unsigned char
#endif
#ifndef COMPUTE_T                // float, or double for a float64 batch
#define COMPUTE_T float
#endif
#ifndef OUT_KIND                 // dtype of the batch, one of the OUT_* below
#define OUT_KIND 0
#endif
#ifndef CHANNELS                 // number of channels, or 0: take the argument
#define CHANNELS 0
#endif
#ifndef SOURCE_CHANNELS_LAST     // 1: source (M, H, W, C), 0: (M, C, H, W)
#define SOURCE_CHANNELS_LAST 1
#endif
#ifndef OUT_CHANNELS_LAST        // 1: batch (N, H, W, C), 0: (N, C, H, W)
#define OUT_CHANNELS_LAST 1
#endif
#ifndef ORDER                    // spline order of the affine map: 0 or 1
#define ORDER 1
#endif
#ifndef FILL_MODE                // one of the FILL_* below
#define FILL_MODE 0
#endif
#ifndef CORRECTED                // 0: Keras' axes and centre, 1: what the argument names say
#define CORRECTED 0
#endif
#ifndef HAS_TABLE                // 0: there is no table, and sample n is source row n, untouched by affine and colour
#define HAS_TABLE 1
#endif
#ifndef HAS_AFFINE               // 0 promises that no sample asks for it; so do the three below
#define HAS_AFFINE 1
#endif
#ifndef HAS_FLIP
#define HAS_FLIP 1
#endif
#ifndef HAS_CHANNEL_SHIFT
#define HAS_CHANNEL_SHIFT 0
#endif
#ifndef HAS_BRIGHTNESS
#define HAS_BRIGHTNESS 0
#endif
#ifndef HAS_RANGE                // 1: `ranges` holds each sample's minimum and maximum after the affine map
#define HAS_RANGE 0
#endif
#ifndef ROUND_AFFINE             // 1: the affine map rounds half up and saturates to 0..255
#define ROUND_AFFINE 0
#endif
#ifndef PREPROCESS               // 0: none, 1: tf, 2: caffe, 3: torch
#define PREPROCESS 0
#endif
#ifndef HAS_RESCALE
#define HAS_RESCALE 0
#endif

#define OUT_FLOAT32 0
#define OUT_FLOAT64 1
#define OUT_FLOAT16 2
#define OUT_BFLOAT16 3
#define OUT_UINT8 4

#define FILL_NEAREST 0
#define FILL_CONSTANT 1
#define FILL_REFLECT 2
#define FILL_WRAP 3

#if OUT_KIND == OUT_FLOAT32
#define OUT_T float
#elif OUT_KIND == OUT_FLOAT64
#define OUT_T double
#elif OUT_KIND == OUT_UINT8
#define OUT_T unsigned char
#else
#define OUT_T unsigned short
#endif

#define DEVICE static __device__ __forceinline__
#define MAX_BLOCK 256            // threads; the launcher never asks for more
#define MIN_BLOCKS 4             // on a multiprocessor: at most 64 registers, or the compiler takes 90 for a path of rare use
#define MAX_BAND_ROWS 64         // rows of one unit of work

#ifndef DYNAMIC_SHARED           // the host shim brings its own
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

// ---------------------------------------------------------------------------------------------------- the table
// One row of doubles per sample, 128 bytes: gpuseq.arrays.PARAM_FIELDS in their order, then what the host adds. Sines and
// cosines come from the host, so that the maps are the NumPy engine's to the last bit.
enum TableColumn {
    THETA, TX, TY, SHEAR, ZX, ZY, FLIP_HORIZONTAL, FLIP_VERTICAL, CHANNEL_SHIFT, BRIGHTNESS,
    COS_THETA, SIN_THETA, COS_SHEAR, SIN_SHEAR,
    SOURCE_INDEX,                // row of the source array, an int64 in the bits of a double
    NUM_COLUMNS = 16             // the last one is padding
};

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

DEVICE bool is_nan(double value) { return value != value; }

// Keras' matrix, R(theta) Shift Shear Zoom about the centre with its axes swapped: gpuseq/matrix.py, product by product.
// fma where BLAS has it (a sum over k accumulates from k = 0), because the last bit decides what lies on the border.
DEVICE void build_inverse(const double *row, int height, int width, double inverse_23[2][3])
{
    const double c = row[COS_THETA], s = row[SIN_THETA];
    const double tx = CORRECTED ? row[TY] : row[TX], ty = CORRECTED ? row[TX] : row[TY];
    const double shift_0 = fma(-s, ty, c * tx);
    const double shift_1 = fma(c, ty, s * tx);
    const double m00 = c * row[ZX];
    const double m10 = s * row[ZX];
    const double m01 = fma(-s, row[COS_SHEAR], c * (-row[SIN_SHEAR])) * row[ZY];
    const double m11 = fma(c, row[COS_SHEAR], s * (-row[SIN_SHEAR])) * row[ZY];
    const double centre_0 = (CORRECTED ? width : height) / 2.0 - 0.5;
    const double centre_1 = (CORRECTED ? height : width) / 2.0 - 0.5;
    inverse_23[0][0] = m11;
    inverse_23[0][1] = m10;
    inverse_23[0][2] = fma(m11, -centre_1, m10 * (-centre_0)) + (shift_1 + centre_1);
    inverse_23[1][0] = m01;
    inverse_23[1][1] = m00;
    inverse_23[1][2] = fma(m01, -centre_1, m00 * (-centre_0)) + (shift_0 + centre_0);
}

// ---------------------------------------------------------------------------------------------------- exact conversions
// Integer -> double by planting the bits under 2^52: an addition instead of a conversion, of which an SM does a quarter
// as many per clock.
DEVICE double widen(unsigned char value) { return __hiloint2double(0x43300000, value) - 4503599627370496.0; }
DEVICE double widen(unsigned short value) { return __hiloint2double(0x43300000, value) - 4503599627370496.0; }
DEVICE double widen(float value) { return value; }
DEVICE double widen(double value) { return (COMPUTE_T)value; }   // Keras casts the image before it warps it

// floor(value) into `start`, value - floor(value) returned. Adding 1.5 * 2^52 rounded down leaves floor(value) in the low
// word, in two additions; `fits` says whether it is a small enough number to be there.
DEVICE double split_near(double value, int *start, bool *fits)
{
    const double planted = __dadd_rd(value, 6755399441055744.0);
    *start = __double2loint(planted);
    *fits = __double2hiint(planted) - 0x43380000 == (*start >> 30);      // the word above holds nothing but the sign
    return value - (planted - 6755399441055744.0);
}

// The same for any number: where it does not fit (an absurd zoom, or NaN) it is far outside, and so is `start`.
DEVICE double split(double value, int *start)
{
    bool fits;
    const double fraction = split_near(value, start, &fits);
    if (fits) return fraction;
    *start = value > 0.0 ? 0x3fffffff : -0x3fffffff;
    return value - floor(value);
}

// ---------------------------------------------------------------------------------------------------- borders
// SciPy's map_coordinate (ndimage/src/ni_support): brings a coordinate outside [0, size - 1] back by the fill mode.
//   nearest   aaaa|abcd|dddd      reflect  dcba|abcd|dcba
//   constant  kkkk|abcd|kkkk      wrap     period size - 1
// The quotients are taken only where they are not the constant that they are next to the image.
DEVICE double map_coordinate(double value, int size)
{
#if FILL_MODE == FILL_CONSTANT
    if (!(value >= 0.0 && value <= size - 1)) return -1.0;
#elif FILL_MODE == FILL_REFLECT
    const double period = 2.0 * size;
    if (value < 0.0) {
        if (size <= 1) return 0.0;
        if (value < -period) value += period * trunc(-value / period);
        value = value < -size ? value + period : (value > -1e-15 ? 1e-15 : -value) - 1.0;
    } else if (value > size - 1) {
        if (size <= 1) return 0.0;
        if (value >= period) value -= period * trunc(value / period);
        if (value >= size) value = period - value - 1.0;
    }
#elif FILL_MODE == FILL_WRAP
    const double period = size - 1;
    if (value < 0.0) {
        if (size <= 1) return 0.0;
        value += period * ((-value < period ? 0.0 : trunc(-value / period)) + 1.0);
    } else if (value > size - 1) {
        if (size <= 1) return 0.0;
        value -= period * (value < 2.0 * period ? 1.0 : trunc(value / period));
    }
#endif
    return value;
}

// A tap next to the image. After map_coordinate it is at most one step outside: for reflect the pixel at the border again,
// for nearest the same, and for constant and wrap of no weight.
DEVICE int fold_tap(int tap, int size) { return tap < 0 ? 0 : tap >= size ? size - 1 : tap; }

// ---------------------------------------------------------------------------------------------------- sampling
struct Shape {
    int height, width, channels;
};

DEVICE int source_row_stride(Shape shape) { return SOURCE_CHANNELS_LAST ? shape.width * shape.channels : shape.width; }
DEVICE int source_col_stride(Shape shape) { return SOURCE_CHANNELS_LAST ? shape.channels : 1; }
DEVICE int source_channel_stride(Shape shape) { return SOURCE_CHANNELS_LAST ? 1 : shape.height * shape.width; }

// Channels that are read together: all of a picture's, so that their loads are in flight at once.
constexpr int STEP = CHANNELS >= 1 && CHANNELS <= 4 ? CHANNELS : 1;

struct CopyTap {                 // where one pixel of the batch reads, the same for all its channels: one pixel
    bool fill;                   // outside, with fill mode constant
    unsigned offset;             // elements from the sample's first
};

struct BlendTaps {               // the same, four pixels
    bool fill;
    unsigned offset[2][2];       // by row and column tap
    double weight_row[2], weight_col[2];
};

DEVICE CopyTap copy_tap(int row, int col, Shape shape)
{
    return {false, (unsigned)(row * source_row_stride(shape) + col * source_col_stride(shape))};
}

// The taps of SciPy's NI_GeometricTransform at a source position. The comparisons as unsigned take a negative tap for a
// large one; the inside of the image, which is nearly all of it, needs no thought.
#if ORDER == 0
typedef CopyTap AffineTaps;

DEVICE AffineTaps find_taps(double row, double col, Shape shape)
{
    int tap_row, tap_col;
    bool row_fits, col_fits;
    split_near(row + 0.5, &tap_row, &row_fits);
    split_near(col + 0.5, &tap_col, &col_fits);
    bool inside = row_fits && col_fits && (unsigned)tap_row < (unsigned)(shape.height - 1)
                  && (unsigned)tap_col < (unsigned)(shape.width - 1);
#if FILL_MODE == FILL_CONSTANT || FILL_MODE == FILL_WRAP
    inside = inside && row >= 0.0 && col >= 0.0;     // -0.5 to 0 rounds into the image, but the mode has a say
#endif
    if (!inside) {
        row = map_coordinate(row, shape.height);
        col = map_coordinate(col, shape.width);
        if (FILL_MODE == FILL_CONSTANT && !(row > -1.0 && col > -1.0)) return {true, 0};
        split(row + 0.5, &tap_row);
        split(col + 0.5, &tap_col);
        tap_row = fold_tap(tap_row, shape.height);
        tap_col = fold_tap(tap_col, shape.width);
    }
    return copy_tap(tap_row, tap_col, shape);
}
#else
typedef BlendTaps AffineTaps;

DEVICE AffineTaps find_taps(double row, double col, Shape shape)
{
    BlendTaps taps;
    int first_row, first_col;
    bool row_fits, col_fits;
    double fraction_row = split_near(row, &first_row, &row_fits), fraction_col = split_near(col, &first_col, &col_fits);
    const int row_stride = source_row_stride(shape), col_stride = source_col_stride(shape);
    taps.fill = false;
    const bool inside = row_fits && col_fits && (unsigned)first_row < (unsigned)(shape.height - 1)
                        && (unsigned)first_col < (unsigned)(shape.width - 1);
    int last_row = first_row + 1, last_col = first_col + 1;
    if (!inside) {
        row = map_coordinate(row, shape.height);
        col = map_coordinate(col, shape.width);
        if (FILL_MODE == FILL_CONSTANT && !(row > -1.0 && col > -1.0)) {
            taps.fill = true;
            return taps;
        }
        fraction_row = split(row, &first_row);
        fraction_col = split(col, &first_col);
        last_row = fold_tap(first_row + 1, shape.height);
        last_col = fold_tap(first_col + 1, shape.width);
        first_row = fold_tap(first_row, shape.height);
        first_col = fold_tap(first_col, shape.width);
    }
    taps.offset[0][0] = first_row * row_stride + first_col * col_stride;
    taps.offset[0][1] = first_row * row_stride + last_col * col_stride;
    taps.offset[1][0] = last_row * row_stride + first_col * col_stride;
    taps.offset[1][1] = last_row * row_stride + last_col * col_stride;
    taps.weight_row[0] = 1.0 - fraction_row;
    taps.weight_row[1] = 1.0 - taps.weight_row[0];
    taps.weight_col[0] = 1.0 - fraction_col;
    taps.weight_col[1] = 1.0 - taps.weight_col[0];
    return taps;
}
#endif

// What SciPy stores: the double cast to the image's dtype, or rounded half up and saturated for uint8.
DEVICE COMPUTE_T store_affine(double value)
{
#if ROUND_AFFINE
    value = value > 0.0 ? value + 0.5 : 0.0;
    return (COMPUTE_T)(int)(value > 255.0 ? 255.0 : value);
#else
    return (COMPUTE_T)value;
#endif
}

// SciPy's sum, in its order: each product rounded, one weight after the other.
DEVICE double blend_in_order(const double tap[2][2], const BlendTaps &taps)
{
    double sum = (tap[0][0] * taps.weight_row[0]) * taps.weight_col[0];
    sum += (tap[0][1] * taps.weight_row[0]) * taps.weight_col[1];
    sum += (tap[1][0] * taps.weight_row[1]) * taps.weight_col[0];
    sum += (tap[1][1] * taps.weight_row[1]) * taps.weight_col[1];
    return sum;
}

// The sum in half the operations. Where nothing is negative its relative error is below 5 * 2^-53, and so is that of
// SciPy's order.
DEVICE double blend_fused(const double tap[2][2], const double weight[2][2])
{
    double sum = tap[0][0] * weight[0][0];
    sum = fma(tap[0][1], weight[0][1], sum);
    sum = fma(tap[1][0], weight[1][0], sum);
    return fma(tap[1][1], weight[1][1], sum);
}

// Two doubles as near to each other as the two blends round to the same float, unless a middle between two floats lies
// next to them: there the low 29 bits are a 1 and then zeros. It happens to about one value in 10^7.
DEVICE bool is_near_tie(double sum)
{
    return ((unsigned)__double2loint(sum) & 0x1fffffffu) - (0x10000000u - 16u) <= 32u;
}

// STEP channels of one pixel after the affine map; `source` points at the sample's first of them.
DEVICE void read_channels(const SOURCE_T *__restrict__ source, const CopyTap &taps, Shape shape, double cval, COMPUTE_T *values)
{
    const SOURCE_T *first = source + taps.offset;
#pragma unroll
    for (int k = 0; k < STEP; ++k) {
        values[k] = taps.fill ? store_affine(cval) : (COMPUTE_T)first[k * source_channel_stride(shape)];
    }
}

DEVICE void read_channels(const SOURCE_T *__restrict__ source, const BlendTaps &taps, Shape shape, double cval, COMPUTE_T *values)
{
    if (taps.fill) {
#pragma unroll
        for (int k = 0; k < STEP; ++k) values[k] = store_affine(cval);
        return;
    }
    double tap[STEP][2][2];
#pragma unroll
    for (int at = 0; at < 4; ++at) {
        const SOURCE_T *first = source + taps.offset[at / 2][at % 2];
#pragma unroll
        for (int k = 0; k < STEP; ++k) tap[k][at / 2][at % 2] = widen(first[k * source_channel_stride(shape)]);
    }
    double sum[STEP];
    bool in_order = true;
    if ((SOURCE_T)-1 > (SOURCE_T)0 && sizeof(COMPUTE_T) == 4 && !ROUND_AFFINE) {     // from unsigned to float
        const double weight[2][2] = {{taps.weight_row[0] * taps.weight_col[0], taps.weight_row[0] * taps.weight_col[1]},
                                     {taps.weight_row[1] * taps.weight_col[0], taps.weight_row[1] * taps.weight_col[1]}};
        in_order = false;
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            sum[k] = blend_fused(tap[k], weight);
            in_order = in_order || is_near_tie(sum[k]);
        }
    }
    if (in_order) {
#pragma unroll
        for (int k = 0; k < STEP; ++k) sum[k] = blend_in_order(tap[k], taps);
    }
#pragma unroll
    for (int k = 0; k < STEP; ++k) values[k] = store_affine(sum[k]);
}

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
// A unit of work is one band of rows of one sample. Inside it the block is a stack of groups of `tile_cols` threads: a
// thread keeps its column and its group steps down the rows, so the column's half of the map is computed once.
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

// Calls visit(taps_of, row, tile, col, is_inside) for the band's pixels, where taps_of() says where the pixel reads. Every
// thread of the block makes the same number of calls, so `visit` may hold barriers; where `is_inside` is false the thread
// has no pixel and taps_of must not be called.
template <class TapsOfColumn, class Visit>
DEVICE void walk_band(const Band &band, Shape shape, int tile_cols, TapsOfColumn taps_of_column, Visit visit)
{
    const int lane = threadIdx.x % tile_cols, group = threadIdx.x / tile_cols, num_groups = blockDim.x / tile_cols;
    for (int tile = 0; tile < shape.width; tile += tile_cols) {
        const int col = tile + lane;
        const auto taps_of_row = taps_of_column(col);
        for (int first = 0; first < band.num_rows; first += num_groups) {
            const int local = first + group;
            visit([&] { return taps_of_row(local); }, band.first_row + local, tile, col,
                  local < band.num_rows && col < shape.width);
        }
    }
}

template <class Visit>
DEVICE void visit_band(const BlockShared &shared, const Band &band, Shape shape, int tile_cols, Visit visit)
{
    const Sample &sample = shared.sample;
    const bool flip_rows = HAS_FLIP && sample.flip_rows, flip_cols = HAS_FLIP && sample.flip_cols;
    if (HAS_AFFINE && sample.has_affine) {           // the same for the whole block, so each way has its own loop
        walk_band(band, shape, tile_cols, [&](int col) {
            const int source_col = flip_cols ? shape.width - 1 - col : col;
            const MapTerms terms = {source_col * sample.inverse_23[0][1], source_col * sample.inverse_23[1][1]};
            return [&shared, shape, terms](int local) {
                const MapTerms row_terms = shared.rows[local];
                return find_taps(row_terms.row + terms.row, row_terms.col + terms.col, shape);
            };
        }, visit);
    } else {
        walk_band(band, shape, tile_cols, [&](int col) {
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
