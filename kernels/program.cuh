// Steps of the modern augmentations on one pixel of uint8: its place is followed back through the geometry, one
// neighbourhood is read, and the colours are done on the way forward.
//
// A segment is a run of steps that needs no image but the one it starts from: at its front at most one step that reads
// several pixels, then nearest geometry and steps of single pixels in any order. gpuseq/ops/segments.py cuts programs
// into segments and makes the rows below; what each number means is said there. Macros: CHANNELS and
// SOURCE_CHANNELS_LAST of common.cuh, and HAS_KERAS. Pillow on uint8 defines every step: products and sums are rounded one by one.

#ifndef HAS_KERAS                // 1: a segment may begin with STEP_KERAS, of the other macros of common.cuh's
#define HAS_KERAS 0
#endif

#if CHANNELS == 0                // the number of channels is always known here; the file compiles without it too
#undef CHANNELS
#define CHANNELS 3
#endif

#define STEP_COLUMNS 10          // doubles of a step: its code, eight numbers, the fill as four bytes
#define MAX_STEPS 16             // of a segment
#define TABLE_BYTES 768          // 256 levels for each of three channels
#define STEP_FILL 9

#define STEP_FIXED 1             // nearest: six 16.16 numbers, columns then rows
#define STEP_LINES 2             // nearest: where the columns' and the rows' numbers begin in `lines`; how far apart those of
                                 // one row and the next lie, and of one column and the next: 0 where all are the same
#define STEP_PROJECTIVE 3        // nearest: eight coefficients
#define STEP_TABLE 4             // which of `levels`, or -1 - n for table n of those that `prepare` made
#define STEP_COLOR 5
#define STEP_GREY 6
#define STEP_HUE 7
#define STEP_PERMUTE 8
#define STEP_BILINEAR 9          // six or eight coefficients; the last two are 0 for an affine map
#define STEP_SHARPNESS 10
#define STEP_BLUR 11             // width, height, where the weights of the columns and of the rows begin
#define STEP_MIX 15              // share, chains, the slot of the first one's image, where their weights begin
#define STEP_KERAS 18            // Keras' ranges: the row of the table, cval; only of a source image, and first of all

#define HAS_ALPHA (CHANNELS == 2 || CHANNELS == 4)
#define COLOURS (CHANNELS - HAS_ALPHA)               // alpha stays as it is

struct Pixel {
    int level[CHANNELS];
};

// Steps of the segment that a block works on.
struct Steps {
    double numbers[MAX_STEPS * STEP_COLUMNS];
    int whole[MAX_STEPS * STEP_COLUMNS]; // the same through `whole_of`: a conversion takes longer than a load
#if HAS_KERAS
    Sample sample;               // what the row of the table says that STEP_KERAS points at
#endif
};

struct Tables {                  // what steps point into
    const unsigned char *levels; // (T, 3, 256)
    const unsigned char *made;   // the same, of images that were looked at
    const int *lines;
    const double *weights;
    const unsigned char *scratch; // intermediate images, (S, H, W, C)
};

// An image that a segment starts from: a source image in its own layout, or an intermediate one with channels last.
struct Levels {
    const unsigned char *data;
    int row_stride, col_stride, channel_stride;
};

DEVICE Pixel read_pixel(const Levels &image, int row, int col)
{
    Pixel pixel;
    const unsigned char *at = image.data + row * image.row_stride + col * image.col_stride;
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) pixel.level[channel] = at[channel * image.channel_stride];
    return pixel;
}

// A number of a step without its fraction, or the four bytes of its fill: the 32 lowest bits. Nothing that is read as a whole
// number is as large as the limits here.
DEVICE int whole_of(double number) { return number > -9e18 && number < 9e18 ? (int)(long long)number : 0; }

DEVICE Pixel fill_of(const int *whole)
{
    const unsigned fill = (unsigned)whole[STEP_FILL];
    Pixel pixel;
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel)
        pixel.level[channel] = fill >> (CHANNELS <= 4 ? 8 * channel : 0) & 255u;
    return pixel;
}

// low + factor * (high - low) in float32, cut off at 0 and 255, truncated.
DEVICE int blend_levels(int low, int high, float factor)
{
    const float mixed = factor * (float)(high - low) + (float)low;
    return (int)(mixed < 0.0f ? 0.0f : mixed > 255.0f ? 255.0f : mixed);
}

#if CHANNELS >= 3
DEVICE int luminance(const Pixel &pixel)
{
    return (19595 * pixel.level[0] + 38470 * pixel.level[1] + 7471 * pixel.level[2] + 32768) >> 16;
}

// torchvision's adjust_hue of one pixel, in float32.
DEVICE void rotate_hue(Pixel &pixel, float shift)
{
    // A product with the rounded quotient, as torchvision has it; every operation below is rounded once, in its order.
    const float per_level = (float)(1.0 / 255.0);
    const float red = (float)pixel.level[0] * per_level, green = (float)pixel.level[1] * per_level, blue = (float)pixel.level[2] * per_level;
    float most = red > green ? red : green, least = red < green ? red : green;
    most = most > blue ? most : blue;
    least = least < blue ? least : blue;
    const bool is_grey = most == least;
    const float spread = most - least, divisor = is_grey ? 1.0f : spread;
    const float saturation = spread / (is_grey ? 1.0f : most);
    const float from_red = (most - red) / divisor, from_green = (most - green) / divisor, from_blue = (most - blue) / divisor;
    const float sixths = most == red ? from_blue - from_green : most == green ? from_red + 2.0f - from_blue : from_green + 4.0f - from_red;
    float hue = sixths * (float)(1.0 / 6.0) + 1.0f;
    hue = (hue >= 1.0f ? hue - 1.0f : hue) + shift;      // fmod by 1, exact: it lies below 2
    hue = hue >= 1.0f ? hue - 1.0f : hue < 0.0f ? hue + 1.0f : hue;
    const float six = hue * 6.0f, whole = floorf(six);
    const float part = saturation * (six - whole), pale = 1.0f - saturation;
    auto clipped = [](float value) { return value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value; };
    const float sinking = clipped((1.0f - part) * most), rising = clipped((part + pale) * most), low = clipped(pale * most);
    const int sector = (int)whole % 6;
    const float turned[3] = {
        sector == 0 || sector == 5 ? most : sector == 1 ? sinking : sector == 4 ? rising : low,
        sector == 1 || sector == 2 ? most : sector == 0 ? rising : sector == 3 ? sinking : low,
        sector == 3 || sector == 4 ? most : sector == 2 ? rising : sector == 5 ? sinking : low};
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) pixel.level[channel] = (int)(turned[channel] * 255.999f);
}
#endif

// Table -1 is the first that `prepare` has made: -1 - n is its number.
DEVICE const unsigned char *table_of(const Tables &tables, int number)
{
    return number < 0 ? tables.made + (-1 - number) * (long long)TABLE_BYTES : tables.levels + number * (long long)TABLE_BYTES;
}

// A step that looks at one pixel.
DEVICE void recolour(Pixel &pixel, const double *step, const int *whole, const Tables &tables)
{
    const int code = whole[0];
    if (code == STEP_TABLE) {
        const unsigned char *levels = table_of(tables, whole[1]);
#pragma unroll
        for (int channel = 0; channel < COLOURS && channel < 3; ++channel)
            pixel.level[channel] = levels[channel * 256 + pixel.level[channel]];
        return;
    }
#if CHANNELS >= 3
    if (code == STEP_HUE) {
        rotate_hue(pixel, (float)step[1]);
    } else if (code == STEP_PERMUTE) {
        const Pixel before = pixel;
#pragma unroll
        for (int channel = 0; channel < 3; ++channel) {
            // No index into registers: the compiler would put the pixel into local memory.
            const int from = whole[1 + channel];
            pixel.level[channel] = from == 0 ? before.level[0] : from == 1 ? before.level[1] : before.level[2];
        }
    } else {
        const int grey = luminance(pixel);
        const float factor = code == STEP_COLOR ? (float)step[1] : 0.0f;
#pragma unroll
        for (int channel = 0; channel < 3; ++channel) pixel.level[channel] = blend_levels(grey, pixel.level[channel], factor);
    }
#endif
}

DEVICE bool is_inside(int row, int col, int height, int width)
{
    return (unsigned)col < (unsigned)width && (unsigned)row < (unsigned)height;
}

// Moves (row, col) of the output of a STEP_FIXED to its input.
DEVICE void trace_fixed(const int *whole, int &row, int &col)
{
    // 16.16 in 64 bits: the products of a position and a coefficient leave 32. The shift is a floor, of negative
    // numbers too.
    const long long from_col = whole[3] + col * (long long)whole[1] + row * (long long)whole[2];
    const long long from_row = whole[6] + col * (long long)whole[4] + row * (long long)whole[5];
    col = (int)(from_col >> 16);
    row = (int)(from_row >> 16);
}

// Moves (row, col) of the step's output to its input, nearest; false where that lies outside.
DEVICE bool trace_back(const double *step, const int *whole, const Tables &tables, int height, int width, int &row, int &col)
{
    const int code = whole[0];
    if (code == STEP_FIXED) {
        trace_fixed(whole, row, col);
    } else if (code == STEP_LINES) {
        const int from_col = tables.lines[whole[1] + row * whole[3] + col];
        row = tables.lines[whole[2] + col * whole[4] + row];
        col = from_col;
    } else {
        const double x = col + 0.5, y = row + 0.5;
        const double depth = step[7] * x + step[8] * y + 1.0;
        const double at_col = (step[1] * x + step[2] * y + step[3]) / depth, at_row = (step[4] * x + step[5] * y + step[6]) / depth;
        if (!(at_col >= 0.0 && at_col < width && at_row >= 0.0 && at_row < height)) return false;
        col = (int)at_col;
        row = (int)at_row;
    }
    return is_inside(row, col, height, width);
}

// Pillow's premultiplied alpha, in which it blends.
DEVICE void premultiply(Pixel &pixel)
{
#if HAS_ALPHA
#pragma unroll
    for (int channel = 0; channel < CHANNELS - 1; ++channel) {
        const int product = pixel.level[channel] * pixel.level[CHANNELS - 1] + 128;
        pixel.level[channel] = ((product >> 8) + product) >> 8;
    }
#endif
}

DEVICE void unpremultiply(Pixel &pixel)
{
#if HAS_ALPHA
    const int alpha = pixel.level[CHANNELS - 1];
    if (alpha == 0 || alpha == 255) return;
#pragma unroll
    for (int channel = 0; channel < CHANNELS - 1; ++channel) {
        const int quotient = 255 * pixel.level[channel] / alpha;
        pixel.level[channel] = quotient < 255 ? quotient : 255;
    }
#endif
}

DEVICE int clamped(int position, int side) { return position < 0 ? 0 : position < side ? position : side - 1; }

DEVICE Pixel read_bilinear(const double *step, const int *whole, const Levels &image, int height, int width, int row, int col)
{
    const double x = col + 0.5, y = row + 0.5;
    double at_col = step[1] * x + step[2] * y + step[3], at_row = step[4] * x + step[5] * y + step[6];
    // Divided only where the map is projective: x / 1.0 is x, and costs a division in double.
    if (step[7] != 0.0 || step[8] != 0.0) {
        const double depth = step[7] * x + step[8] * y + 1.0;
        at_col /= depth;
        at_row /= depth;
    }
    Pixel blended;
    if (at_col >= 0.0 && at_col < width && at_row >= 0.0 && at_row < height) {
        at_col -= 0.5;
        at_row -= 0.5;
        const double floor_col = floor(at_col), floor_row = floor(at_row);
        const double right = at_col - floor_col, below = at_row - floor_row;
        const int left_col = clamped((int)floor_col, width), right_col = clamped((int)floor_col + 1, width);
        const int upper_row = clamped((int)floor_row, height), lower_row = clamped((int)floor_row + 1, height);
        Pixel taps[4] = {read_pixel(image, upper_row, left_col), read_pixel(image, upper_row, right_col),
                         read_pixel(image, lower_row, left_col), read_pixel(image, lower_row, right_col)};
#pragma unroll
        for (int tap = 0; tap < 4; ++tap) premultiply(taps[tap]);
#pragma unroll
        for (int channel = 0; channel < CHANNELS; ++channel) {
            const double upper_left = taps[0].level[channel], lower_left = taps[2].level[channel];
            // Pillow's form of the blend. Weights times pixels, added up, would truncate constant areas a level down.
            const double upper = upper_left + (taps[1].level[channel] - upper_left) * right;
            const double lower = lower_left + (taps[3].level[channel] - lower_left) * right;
            blended.level[channel] = (int)(upper + (lower - upper) * below);
        }
    } else {
        blended = fill_of(whole);
    }
    unpremultiply(blended);
    return blended;
}

DEVICE Pixel read_sharpened(const double *step, const Levels &image, int height, int width, int row, int col)
{
    Pixel pixel = read_pixel(image, row, col);
    if (row < 1 || col < 1 || row > height - 2 || col > width - 2) return pixel;
    Pixel sum;
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) sum.level[channel] = 4 * pixel.level[channel];
    for (int down = -1; down <= 1; ++down) {
        for (int across = -1; across <= 1; ++across) {
            const Pixel tap = read_pixel(image, row + down, col + across);
#pragma unroll
            for (int channel = 0; channel < CHANNELS; ++channel) sum.level[channel] += tap.level[channel];
        }
    }
    const float factor = (float)step[1];
#pragma unroll
    for (int channel = 0; channel < COLOURS; ++channel)
        // Thirteenths, rounded: none of them lies halfway, so integers are exact.
        pixel.level[channel] = blend_levels((2 * sum.level[channel] + 13) / 26, pixel.level[channel], factor);
    return pixel;
}

// d c b | a b c d | c b a
DEVICE int reflected(int position, int side)
{
    position = position < 0 ? -position : position;
    return position < side ? position : 2 * (side - 1) - position;
}

DEVICE Pixel read_blurred(const double *step, const Levels &image, const Tables &tables, int height, int width, int row, int col)
{
    const int kernel_width = (int)step[1], kernel_height = (int)step[2];
    const double *col_weights = tables.weights + (long long)step[3], *row_weights = tables.weights + (long long)step[4];
    double total[CHANNELS];
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) total[channel] = 0.0;
    // Rows within columns, and in double: the order of the NumPy engine's sums, without its intermediate image.
    for (int down = 0; down < kernel_height; ++down) {
        const int at_row = reflected(row + down - kernel_height / 2, height);
        double line[CHANNELS];
#pragma unroll
        for (int channel = 0; channel < CHANNELS; ++channel) line[channel] = 0.0;
        for (int across = 0; across < kernel_width; ++across) {
            const Pixel tap = read_pixel(image, at_row, reflected(col + across - kernel_width / 2, width));
#pragma unroll
            for (int channel = 0; channel < CHANNELS; ++channel) line[channel] += col_weights[across] * tap.level[channel];
        }
#pragma unroll
        for (int channel = 0; channel < CHANNELS; ++channel) total[channel] += row_weights[down] * line[channel];
    }
    Pixel pixel;
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) {
        const double level = rint(total[channel]);
        pixel.level[channel] = level < 0.0 ? 0 : level > 255.0 ? 255 : (int)level;
    }
    return pixel;
}

// What several chains have made of a pixel, weighted, and that blended with the pixel: AugMix.
DEVICE Pixel read_mixed(const double *step, const Levels &image, const Tables &tables, int height, int width, int row, int col)
{
    Pixel pixel = read_pixel(image, row, col);
    const int chains = (int)step[2];
    const long long image_bytes = (long long)height * width * CHANNELS;
    const unsigned char *made = tables.scratch + (long long)step[3] * image_bytes + (row * width + col) * CHANNELS;
    const double *weights = tables.weights + (long long)step[4];
    // In float and in the order of the chains, as the NumPy engine sums.
    float total[CHANNELS];
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) total[channel] = 0.0f;
    for (int chain = 0; chain < chains; ++chain, made += image_bytes) {
        const float weight = (float)weights[chain];
#pragma unroll
        for (int channel = 0; channel < CHANNELS; ++channel) total[channel] += weight * (float)made[channel];
    }
    const float share = (float)step[1];
#pragma unroll
    for (int channel = 0; channel < CHANNELS; ++channel) {
        const int mixed = (int)(total[channel] < 0.0f ? 0.0f : total[channel] > 255.0f ? 255.0f : total[channel]);
        pixel.level[channel] = blend_levels(pixel.level[channel], mixed, share);
    }
    return pixel;
}

#if HAS_KERAS
static_assert(ROUND_AFFINE && !HAS_CHANNEL_SHIFT, "levels, and none that a look at the image decides");

// What Keras' affine map, flips and brightness make of a source image, as levels: rounded half up after the map, cut off after
// the brightness.
DEVICE Pixel read_keras(const Steps &steps, const Levels &image, int height, int width, int row, int col)
{
    const Sample &sample = steps.sample;
    const Shape shape = {height, width, CHANNELS};
    const int from_row = sample.flip_rows ? height - 1 - row : row, from_col = sample.flip_cols ? width - 1 - col : col;
    Pixel pixel;
    auto read = [&](const auto &taps) {
#pragma unroll
        for (int first = 0; first < CHANNELS; first += STEP) {
            COMPUTE_T values[STEP];
            read_channels(image.data + first * source_channel_stride(shape), taps, shape, steps.numbers[2], values);
            shift_and_brighten(values, sample, first, CHANNELS);
#pragma unroll
            for (int k = 0; k < STEP; ++k)
                pixel.level[first + k] = values[k] >= (COMPUTE_T)255.0 ? 255 : values[k] > (COMPUTE_T)0.0 ? (int)values[k] : 0;
        }
    };
    if (HAS_AFFINE && sample.has_affine) {
        const double (*inverse_23)[3] = sample.inverse_23;
        read(find_taps((inverse_23[0][2] + from_row * inverse_23[0][0]) + from_col * inverse_23[0][1],
                       (inverse_23[1][2] + from_row * inverse_23[1][0]) + from_col * inverse_23[1][1], shape));
    } else {
        read(copy_tap(from_row, from_col, shape));
    }
    return pixel;
}
#endif

// One pixel after a segment. The steps are the same for the whole block, so no warp splits over their codes.
DEVICE Pixel run_segment(const Steps &segment, int num_steps, const Levels &image, const Tables &tables, int height, int width, int row, int col)
{
    const double *steps = segment.numbers;
    const int front = num_steps > 0 ? segment.whole[0] : 0;
    const bool has_front = front >= STEP_BILINEAR;
    int first = has_front ? 1 : 0;
    Pixel pixel;
    bool is_filled = false;
    // From the last step to the first: each step of geometry says where its output pixel comes from. Where one finds
    // nothing, what lies before it is of no interest, and its fill goes through the steps after it.
    for (int step = num_steps - 1; step >= first && !is_filled; --step) {
        const int *whole = segment.whole + step * STEP_COLUMNS;
        if (whole[0] >= STEP_TABLE || trace_back(steps + step * STEP_COLUMNS, whole, tables, height, width, row, col)) continue;
        pixel = fill_of(whole);
        first = step + 1;
        is_filled = true;
    }
    if (!is_filled) {
        if (!has_front) {
            pixel = read_pixel(image, row, col);
#if HAS_KERAS
        } else if (front == STEP_KERAS) {
            pixel = read_keras(segment, image, height, width, row, col);
#endif
        } else if (front == STEP_BILINEAR) {
            pixel = read_bilinear(steps, segment.whole, image, height, width, row, col);
        } else if (front == STEP_SHARPNESS) {
            pixel = read_sharpened(steps, image, height, width, row, col);
        } else if (front == STEP_MIX) {
            pixel = read_mixed(steps, image, tables, height, width, row, col);
        } else {
            pixel = read_blurred(steps, image, tables, height, width, row, col);
        }
    }
    for (int step = first; step < num_steps; ++step) {
        const int *whole = segment.whole + step * STEP_COLUMNS;
        if (whole[0] >= STEP_TABLE) recolour(pixel, steps + step * STEP_COLUMNS, whole, tables);
    }
    return pixel;
}

// ------------------------------------------------------------------------------------------------ plain segments
// What most segments are made of: maps in fixed point, tables and colours. Several pixels of a thread go through such a segment
// together, so that a step is read once for them, and their loads are in flight at once.
#define AT_ONCE 4                // pixels of a thread

struct Plain {
    bool is_plain, is_moved;     // whether a segment is; whether it moves pixels
};

DEVICE Plain plain_of(const Steps &segment, int num_steps)
{
    Plain found = {true, false};
#pragma unroll 1                 // once for some 2,048 pixels; unrolled it takes the registers of the whole kernel
    for (int step = 0; step < num_steps; ++step) {
        const int code = segment.whole[step * STEP_COLUMNS];
        found.is_plain &= code == STEP_FIXED || code == STEP_TABLE || code == STEP_COLOR || code == STEP_GREY;
        found.is_moved |= code == STEP_FIXED;
    }
    return found;
}

// Reads pixels where the segment takes them from, or fills them; `first` says from which step on each is recoloured.
DEVICE void read_plain(Pixel *pixels, int *first, const Steps &segment, int num_steps, const Levels &image, int height, int width,
                       int *rows, int *cols)
{
#pragma unroll
    for (int k = 0; k < AT_ONCE; ++k) first[k] = 0;
    for (int step = num_steps - 1; step >= 0; --step) {
        const int *whole = segment.whole + step * STEP_COLUMNS;
        if (whole[0] != STEP_FIXED) continue;
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            if (first[k] > 0) continue;
            trace_fixed(whole, rows[k], cols[k]);
            if (is_inside(rows[k], cols[k], height, width)) continue;
            pixels[k] = fill_of(whole);
            first[k] = step + 1;
        }
    }
#pragma unroll
    for (int k = 0; k < AT_ONCE; ++k)
        if (first[k] == 0) pixels[k] = read_pixel(image, rows[k], cols[k]);
}

// The colours of a plain segment; those of pixel k begin with step first[k].
DEVICE void recolour_plain(Pixel *pixels, const int *first, const Steps &segment, int num_steps, const Tables &tables)
{
    for (int step = 0; step < num_steps; ++step) {
        const int *whole = segment.whole + step * STEP_COLUMNS;
        const int code = whole[0];
        if (code == STEP_TABLE) {
            const unsigned char *levels = table_of(tables, whole[1]);
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k)
#pragma unroll
                for (int channel = 0; channel < COLOURS && channel < 3; ++channel)
                    if (step >= first[k]) pixels[k].level[channel] = levels[channel * 256 + pixels[k].level[channel]];
#if CHANNELS >= 3
        } else if (code != STEP_FIXED) {
            const float factor = code == STEP_COLOR ? (float)segment.numbers[step * STEP_COLUMNS + 1] : 0.0f;
#pragma unroll
            for (int k = 0; k < AT_ONCE; ++k) {
                const int grey = luminance(pixels[k]);
#pragma unroll
                for (int channel = 0; channel < 3; ++channel)
                    if (step >= first[k]) pixels[k].level[channel] = blend_levels(grey, pixels[k].level[channel], factor);
            }
#endif
        }
    }
}

// Whether pixels of an image can be read four at once, in whole words: of each channel, or of all where they lie side by side.
DEVICE bool is_in_fours(const Levels &image, int num_pixels)
{
    return num_pixels % 4 == 0 && (size_t)image.data % 4 == 0;
}

// Reads the four pixels that begin at a position divisible by four.
DEVICE void read_four(Pixel *pixels, const Levels &image, int position)
{
    unsigned words[CHANNELS];
    const bool is_side_by_side = image.channel_stride == 1;
#pragma unroll
    for (int number = 0; number < CHANNELS; ++number)
        words[number] = *(const unsigned *)(image.data + (is_side_by_side ? position * CHANNELS + 4 * number
                                                                          : number * image.channel_stride + position));
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
        for (int channel = 0; channel < CHANNELS; ++channel) {
            const int byte = k * CHANNELS + channel;
            pixels[k].level[channel] = is_side_by_side ? words[byte / 4] >> byte % 4 * 8 & 255u : words[channel] >> k * 8 & 255u;
        }
}
