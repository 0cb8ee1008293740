// The affine map of one pixel, as scipy.ndimage.affine_transform (1.16 and later) computes it at orders 0 and 1.
//
// Two rules keep the pixels SciPy's to the bit: nothing is contracted to a fused multiply-add unless it says fma(), and
// every expression in double is written in the order in which SciPy evaluates it.

// ---------------------------------------------------------------------------------------------------- exact conversions
// Integer -> double by planting the bits under 2^52: an addition instead of a conversion, of which an SM does a quarter
// as many per clock.
DEVICE double widen(unsigned char value) { return __hiloint2double(0x43300000, value) - 4503599627370496.0; }
DEVICE double widen(unsigned short value) { return __hiloint2double(0x43300000, value) - 4503599627370496.0; }
DEVICE double widen(float value) { return value; }
DEVICE double widen(double value) { return (COMPUTE_T)value; }   // Keras casts the image before it warps it

// Byte `at` of a word.
DEVICE double widen_byte(unsigned word, int at)
{
    return __hiloint2double(0x43300000, __byte_perm(word, 0, 0x4440 + at)) - 4503599627370496.0;
}

// A double to the nearest float. CuPy's -ftz=true makes the assembler guard a plain cast: a comparison in double and a
// product for each value, so that a result below 1.2e-38 becomes 0.
#ifndef HOST_RUN                 // the host shim brings its own
DEVICE float nearest_float(double value)
{
    float nearest;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(nearest) : "d"(value));
    return nearest;
}
#endif

// floor(value) into the low word of `planted`, value - floor(value) returned: adding 1.5 * 2^52 rounded down leaves the
// floor there, in two additions. The word above says whether it is small enough to be there.
DEVICE double split_near(double value, double *planted)
{
    *planted = __dadd_rd(value, 6755399441055744.0);
    return value - (*planted - 6755399441055744.0);
}

// Whether the floor that is planted is one of 0 to size - 1. One comparison of each word does it: a floor from 0 on leaves
// the word above as it is in 1.5 * 2^52.
DEVICE bool is_within(double planted, int size)
{
    return (__double2hiint(planted) == 0x43380000) & ((unsigned)__double2loint(planted) < (unsigned)size);
}

// floor(value) into `start`, value - floor(value) returned, for any number: where the floor is no small number (an absurd
// zoom, or NaN) it is far outside, and so is `start`.
DEVICE double split(double value, int *start)
{
    double planted;
    const double fraction = split_near(value, &planted);
    *start = __double2loint(planted);
    if (__double2hiint(planted) - 0x43380000 == *start >> 30) return fraction;     // nothing above but the sign
    *start = value > 0.0 ? 0x3fffffff : -0x3fffffff;
    return value - floor(value);
}

// ---------------------------------------------------------------------------------------------------- taps
// Channels that are read together: all of a picture's, so that their loads are in flight at once.
constexpr int STEP = CHANNELS >= 1 && CHANNELS <= 4 ? CHANNELS : 1;

// Where a sample begins. IN_WORDS a pixel's taps are taken out of the aligned words about them, so `source` is rounded down to a
// word, and that may be another sample's.
struct Start {
    unsigned lead;               // elements from `source` to the sample's first
    bool in_words;               // all words about the sample's taps lie within the array; else it is read byte by byte
};

struct CopyTap {                 // where one pixel of the batch reads, the same for all its channels: one pixel
    bool fill;                   // outside, with fill mode constant
    unsigned offset;             // elements from `source`
};

struct BlendTaps {               // the same, four pixels
    bool fill;
    bool in_words;
    unsigned offset;             // of the first; the others lie a step further on, which is 0 where a border makes two one
    unsigned row_step, col_step; // see `col_step_of`
    double weight_row[2], weight_col[2];
};

DEVICE CopyTap copy_tap(int row, int col, Shape shape, Start start = {})
{
    return {false, (unsigned)(row * source_row_stride(shape) + (col * source_col_stride(shape) + (int)start.lead))};
}

// A step of one column or none. Of words with three channels, what `__byte_perm` takes to pick the second of two pixels, or the
// first again; its last digit is the step.
DEVICE unsigned col_step_of(int num_cols, int col_stride)
{
    if (IN_WORDS && CHANNELS == 3) return num_cols ? 0x6543 : 0x3210;
    return num_cols * col_stride;
}

// The taps of SciPy's NI_GeometricTransform at a source position. The inside of the image, which is nearly all of it, needs
// no thought.
#if ORDER == 0
typedef CopyTap AffineTaps;

DEVICE AffineTaps find_taps(double row, double col, Shape shape, Start start = {})
{
    double planted_row, planted_col;
    split_near(row + 0.5, &planted_row);
    split_near(col + 0.5, &planted_col);
    int tap_row = __double2loint(planted_row), tap_col = __double2loint(planted_col);
    bool inside = is_within(planted_row, shape.height - 1) && is_within(planted_col, shape.width - 1);
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
    return copy_tap(tap_row, tap_col, shape, start);
}
#else
typedef BlendTaps AffineTaps;

DEVICE AffineTaps find_taps(double row, double col, Shape shape, Start start = {})
{
    BlendTaps taps;
    taps.in_words = start.in_words;
    double planted_row, planted_col;
    double fraction_row = split_near(row, &planted_row), fraction_col = split_near(col, &planted_col);
    const int row_stride = source_row_stride(shape), col_stride = source_col_stride(shape);
    // Before the branch, though outside it is nonsense, so that the inside jumps over one block of code and no more.
    taps.fill = false;
    taps.offset = (unsigned)__double2loint(planted_row) * row_stride
                  + ((unsigned)__double2loint(planted_col) * col_stride + start.lead);
    taps.row_step = row_stride;
    taps.col_step = col_step_of(1, col_stride);
    if (!(is_within(planted_row, shape.height - 1) & is_within(planted_col, shape.width - 1))) {
        row = map_coordinate(row, shape.height);
        col = map_coordinate(col, shape.width);
        if (FILL_MODE == FILL_CONSTANT && !(row > -1.0 && col > -1.0)) {
            taps.fill = true;
            return taps;
        }
        int first_row, first_col;
        fraction_row = split(row, &first_row);
        fraction_col = split(col, &first_col);
        const int last_row = fold_tap(first_row + 1, shape.height), last_col = fold_tap(first_col + 1, shape.width);
        first_row = fold_tap(first_row, shape.height);
        first_col = fold_tap(first_col, shape.width);
        taps.offset = first_row * row_stride + first_col * col_stride + start.lead;
        taps.row_step = (last_row - first_row) * row_stride;
        taps.col_step = col_step_of(last_col - first_col, col_stride);
    }
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
    return sizeof(COMPUTE_T) == 4 ? (COMPUTE_T)nearest_float(value) : (COMPUTE_T)value;
#endif
}

// Two doubles as near to each other as the two blends round to the same float, unless a middle between two floats lies
// next to them: there the low 29 bits are a 1 and then zeros. It happens to about one value in 10^7. The distance from 16
// units below the middle, modulo 2^29 and in the upper bits of the word, so that one shift and addition makes it.
DEVICE unsigned above_tie(double sum) { return ((unsigned)__double2loint(sum) << 3) - ((0x10000000u - 16u) << 3); }
constexpr unsigned NEAR_TIE = 32u << 3 | 7u;

// STEP channels of one pixel after the affine map; `source` points at the sample's first of them.
DEVICE void read_channels(const SOURCE_T *__restrict__ source, const CopyTap &taps, Shape shape, double cval, COMPUTE_T *values)
{
    const SOURCE_T *first = source + taps.offset;
#pragma unroll
    for (int k = 0; k < STEP; ++k) {
        values[k] = taps.fill ? store_affine(cval) : (COMPUTE_T)first[k * source_channel_stride(shape)];
    }
}

#if IN_WORDS
// The two taps of a row out of the words about them, their first channels in the lowest bytes.
DEVICE void read_words(const SOURCE_T *source, unsigned offset, unsigned col_step, unsigned tap_words[2])
{
#if CHANNELS == 4
    tap_words[0] = *(const unsigned *)(source + offset);
    tap_words[1] = *(const unsigned *)(source + (offset + col_step));
#else
    // Three words, though two do for three pixels of four: a condition costs more than the load.
    const unsigned *words = (const unsigned *)(source + (offset & ~3u));
    const unsigned first = words[0], second = words[1], third = words[2];
    const unsigned low = __funnelshift_r(first, second, offset * 8), high = __funnelshift_r(second, third, offset * 8);
    tap_words[0] = low;
    tap_words[1] = __byte_perm(low, high, col_step);
#endif
}

// STEP channels at the four taps of a pixel.
struct Loaded {
    unsigned words[2][2];

    __device__ __forceinline__ double tap(int row, int col, int k) const { return widen_byte(words[row][col], k); }
};

DEVICE Loaded load_taps(const SOURCE_T *__restrict__ source, const BlendTaps &taps, Shape)
{
    Loaded loaded;
    if (__builtin_expect(taps.in_words, 1)) {
        read_words(source, taps.offset, taps.col_step, loaded.words[0]);
        read_words(source, taps.offset + taps.row_step, taps.col_step, loaded.words[1]);
        return loaded;
    }
#pragma unroll
    for (int at = 0; at < 4; ++at) {
        const SOURCE_T *pixel = source + taps.offset + (at / 2 ? taps.row_step : 0u) + (at % 2 ? taps.col_step & 15u : 0u);
        unsigned word = 0;
#pragma unroll
        for (int k = 0; k < STEP; ++k) word |= (unsigned)pixel[k] << 8 * k;
        loaded.words[at / 2][at % 2] = word;
    }
    return loaded;
}

// The same, which the compiler cannot know, because it has not heard that no height is negative. It would keep the doubles that it
// has made of the words, 24 registers, for a sum that one value in 10^7 asks for.
DEVICE Loaded hidden(Loaded loaded, Shape shape)
{
#pragma unroll
    for (int at = 0; at < 4; ++at) loaded.words[at / 2][at % 2] ^= (unsigned)shape.height >> 31;
    return loaded;
}
#else
struct Loaded {
    double taps[STEP][2][2];

    __device__ __forceinline__ double tap(int row, int col, int k) const { return taps[k][row][col]; }
};

// Four addresses, and the channels at fixed distances from them. A border changes what the addresses are and not how they
// are read: loads of its own, or taps that are exchanged after the loads, cost every pixel some thirty instructions.
DEVICE Loaded load_taps(const SOURCE_T *__restrict__ source, const BlendTaps &taps, Shape shape)
{
    const SOURCE_T *first = source + taps.offset;
    Loaded loaded;
#pragma unroll
    for (int at = 0; at < 4; ++at) {
        const SOURCE_T *pixel = first + (at / 2 ? taps.row_step : 0u) + (at % 2 ? taps.col_step : 0u);
#pragma unroll
        for (int k = 0; k < STEP; ++k) loaded.taps[k][at / 2][at % 2] = widen(pixel[k * source_channel_stride(shape)]);
    }
    return loaded;
}

DEVICE const Loaded &hidden(const Loaded &loaded, Shape) { return loaded; }
#endif

// SciPy's sum, in its order: each product rounded, one weight after the other.
DEVICE double blend_in_order(const Loaded &loaded, int k, const BlendTaps &taps)
{
    double sum = (loaded.tap(0, 0, k) * taps.weight_row[0]) * taps.weight_col[0];
    sum += (loaded.tap(0, 1, k) * taps.weight_row[0]) * taps.weight_col[1];
    sum += (loaded.tap(1, 0, k) * taps.weight_row[1]) * taps.weight_col[0];
    sum += (loaded.tap(1, 1, k) * taps.weight_row[1]) * taps.weight_col[1];
    return sum;
}

// The sum in half the operations. Where nothing is negative its relative error is below 5 * 2^-53, and so is that of
// SciPy's order.
DEVICE double blend_fused(const Loaded &loaded, int k, const double weight[2][2])
{
    double sum = loaded.tap(0, 0, k) * weight[0][0];
    sum = fma(loaded.tap(0, 1, k), weight[0][1], sum);
    sum = fma(loaded.tap(1, 0, k), weight[1][0], sum);
    return fma(loaded.tap(1, 1, k), weight[1][1], sum);
}

DEVICE void read_channels(const SOURCE_T *__restrict__ source, const BlendTaps &taps, Shape shape, double cval, COMPUTE_T *values)
{
    if (taps.fill) {
#pragma unroll
        for (int k = 0; k < STEP; ++k) values[k] = store_affine(cval);
        return;
    }
    const Loaded loaded = load_taps(source, taps, shape);
    double sum[STEP];
    bool in_order = true;
    constexpr bool IS_FUSED = (SOURCE_T)-1 > (SOURCE_T)0 && sizeof(COMPUTE_T) == 4 && !ROUND_AFFINE;     // from unsigned to float
    if (IS_FUSED) {
        const double weight[2][2] = {{taps.weight_row[0] * taps.weight_col[0], taps.weight_row[0] * taps.weight_col[1]},
                                     {taps.weight_row[1] * taps.weight_col[0], taps.weight_row[1] * taps.weight_col[1]}};
        unsigned nearest = ~0u;
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            sum[k] = blend_fused(loaded, k, weight);
            nearest = above_tie(sum[k]) < nearest ? above_tie(sum[k]) : nearest;
        }
        in_order = nearest <= NEAR_TIE;
    }
    if (in_order) {
        const Loaded again = IS_FUSED ? hidden(loaded, shape) : loaded;
#pragma unroll
        for (int k = 0; k < STEP; ++k) sum[k] = blend_in_order(again, k, taps);
    }
#pragma unroll
    for (int k = 0; k < STEP; ++k) values[k] = store_affine(sum[k]);
}
