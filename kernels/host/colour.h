// What becomes of a row of values after the affine map, in Keras' order: one function of a row for each step.
//
// A row holds `num_pixels` pixels of C channels side by side, of the compute type. To add a colour operation, write its
// function here, its numbers into `Colour` (filled by `colour_of` from the sample's row of the table), and its line into
// `recolour`; an operation that needs the whole sample first sets `needs_sample`, and finds what `Range` found. Nothing
// else in the engine knows which operations there are. The arithmetic is that of shift_and_brighten and preprocess in
// kernels/sample.cuh and of gpuseq/ops/numpy, operation by operation.
#pragma once
#include "geometry.h"

namespace {

template <class T> struct Range {        // of a sample after the affine map; NaN where there is one
    T low, high;

    // Lanes by themselves, so that it becomes vectors; a comparison passes a NaN over, which is looked for apart.
    void see(const T *row, int64_t num_values)
    {
        constexpr int LANES = 16;
        T least[LANES], most[LANES];
        int is_nan[LANES] = {};
        for (int lane = 0; lane < LANES; ++lane) {
            least[lane] = low;
            most[lane] = high;
        }
        int64_t at = 0;
        for (; at + LANES <= num_values; at += LANES)
            for (int lane = 0; lane < LANES; ++lane) {
                const T value = row[at + lane];
                least[lane] = value < least[lane] ? value : least[lane];
                most[lane] = value > most[lane] ? value : most[lane];
                is_nan[lane] |= value != value;
            }
        for (; at < num_values; ++at) {
            least[0] = row[at] < least[0] ? row[at] : least[0];
            most[0] = row[at] > most[0] ? row[at] : most[0];
            is_nan[0] |= row[at] != row[at];
        }
        for (int lane = 0; lane < LANES; ++lane) {
            low = least[lane] < low ? least[lane] : low;
            high = most[lane] > high ? most[lane] : high;
            if (is_nan[lane]) low = high = (T)NAN;
        }
    }
};

template <class T> struct Colour {       // one sample's numbers
    bool shifts, brightens, stretches;
    T shift, low, high;                  // the range is what the channel shift clips to
    T shifted_low, shifted_span;         // the range after it: what brightness stretches to 0..255 and back
    float stretch_low, stretch_span;     // the same as Keras' float32 image sees it
    float brightness;
};

template <class T> inline T held(T value, T low, T high) { return value < low ? low : value > high ? high : value; }

template <class T> Colour<T> colour_of(const Job &job, int64_t sample)
{
    Colour<T> colour = {};
    if (!job.table) return colour;
    const double *row = job.table + sample * table::NUM_COLUMNS;
    colour.shifts = job.has_channel_shift && !table::is_nan(row[table::CHANNEL_SHIFT]);
    colour.brightens = job.has_brightness && !table::is_nan(row[table::BRIGHTNESS]);
    colour.shift = (T)row[table::CHANNEL_SHIFT];
    colour.brightness = (float)row[table::BRIGHTNESS];
    return colour;
}

// The shift is monotone, so the range of the shifted is the shifted range.
template <class T> void set_range(Colour<T> &colour, const Range<T> &range)
{
    T low = range.low, high = range.high;
    colour.low = low;
    colour.high = high;
    if (colour.shifts) {
        if (low != low) colour.shift = low;      // a NaN in the sample: NumPy's clip to NaN leaves nothing else
        low = held(low + colour.shift, colour.low, colour.high);
        high = held(range.high + colour.shift, colour.low, colour.high);
    }
    colour.stretches = low < 0 || high > 255;
    colour.shifted_low = low;
    colour.shifted_span = high - low;
    colour.stretch_low = (float)low;
    colour.stretch_span = (float)high - (float)low;
}

template <class T> void shift(T *__restrict__ row, int64_t num_values, const Colour<T> &colour)
{
    const T by = colour.shift, low = colour.low, high = colour.high;
    for (int64_t at = 0; at < num_values; ++at) row[at] = held(row[at] + by, low, high);
}

// Keras' brightness is Pillow's blend with black of a uint8 image, which leaves alpha alone.
template <class T> void brighten(T *__restrict__ row, int64_t num_pixels, int channels, const Colour<T> &colour)
{
    const float factor = colour.brightness, low = colour.stretch_low, span = colour.stretch_span;
    const T shifted_low = colour.shifted_low, shifted_span = colour.shifted_span;
    const auto level_of = [&](T value) {
        float level = (float)value;
        if (colour.stretches) {
            level -= low;
            if (span != 0.0f) level /= span;
            level *= 255.0f;
        }
        // NumPy makes 0 of NaN where it casts to uint8. The compiler makes a truncation of the two casts, which keeps it.
        return level == level ? (float)(int)level : 0.0f;
    };
    const auto restored = [&](float level) { return colour.stretches ? (T)level / (T)255 * shifted_span + shifted_low : (T)level; };
    const auto scaled = [&](float level) { return held((float)(int)(factor * level), 0.0f, 255.0f); };
    if (channels == 4) {
        for (int64_t at = 0; at < num_pixels * 4; at += 4) {
            for (int channel = 0; channel < 3; ++channel) row[at + channel] = restored(scaled(level_of(row[at + channel])));
            row[at + 3] = restored(level_of(row[at + 3]));
        }
        return;
    }
    for (int64_t at = 0; at < num_pixels * channels; ++at) row[at] = restored(scaled(level_of(row[at])));
}

template <class T> void recolour(T *row, int64_t num_pixels, int channels, const Colour<T> &colour)
{
    if (colour.shifts) shift(row, num_pixels * channels, colour);
    if (colour.brightens) brighten(row, num_pixels, channels, colour);
}

// ---------------------------------------------------------------------------------------------------- normalisation
template <class T> void subtract(T *__restrict__ row, int64_t num_values, T by)
{
    for (int64_t at = 0; at < num_values; ++at) row[at] -= by;
}
template <class T> void divide(T *__restrict__ row, int64_t num_values, T by)
{
    for (int64_t at = 0; at < num_values; ++at) row[at] /= by;
}
// The same by numbers of the channels, spread over a row.
template <class T> void subtract_each(T *__restrict__ row, int64_t num_values, const T *__restrict__ by)
{
    for (int64_t at = 0; at < num_values; ++at) row[at] -= by[at];
}
template <class T> void divide_each(T *__restrict__ row, int64_t num_values, const T *__restrict__ by)
{
    for (int64_t at = 0; at < num_values; ++at) row[at] /= by[at];
}

// What is subtracted from and divided by the channels of a row, spread over `num_cols` pixels; null where nothing is.
template <class T> struct Spread {
    const T *mode_mean, *mode_std, *mean, *divisor;
};

constexpr double CAFFE_MEAN[3] = {103.939, 116.779, 123.68};         // imagenet_utils of Keras
constexpr double TORCH_MEAN[3] = {0.485, 0.456, 0.406}, TORCH_STD[3] = {0.229, 0.224, 0.225};

template <class T> Spread<T> spread_of(const Job &job, int num_cols, T *room)
{
    const auto fill = [&](auto value_of) {
        T *to = room;
        for (int col = 0; col < num_cols; ++col)
            for (int channel = 0; channel < job.channels; ++channel) *room++ = (T)value_of(channel);
        return to;
    };
    const T *mean = (const T *)job.mean_c, *divisor = (const T *)job.divisor_c;
    Spread<T> spread = {};
    if (job.preprocess == 2) spread.mode_mean = fill([](int channel) { return CAFFE_MEAN[channel]; });
    if (job.preprocess == 3) spread.mode_mean = fill([](int channel) { return TORCH_MEAN[channel]; });
    if (job.preprocess == 3) spread.mode_std = fill([](int channel) { return TORCH_STD[channel]; });
    if (mean) spread.mean = fill([&](int channel) { return mean[channel]; });
    if (divisor) spread.divisor = fill([&](int channel) { return divisor[channel]; });
    return spread;
}

// Keras' imagenet_utils modes, then the rescale.
template <class T> void preprocess(const Job &job, T *row, int64_t num_pixels, const Spread<T> &spread)
{
    const int64_t num_values = num_pixels * job.channels;
    if (job.preprocess == 1) {
        divide(row, num_values, (T)127.5);
        subtract(row, num_values, (T)1);
    } else if (job.preprocess == 2) {
        for (int64_t at = 0; at < num_values; at += 3) {
            const T red = row[at];
            row[at] = row[at + 2];
            row[at + 2] = red;
        }
        subtract_each(row, num_values, spread.mode_mean);
    } else if (job.preprocess == 3) {
        divide(row, num_values, (T)255);
        subtract_each(row, num_values, spread.mode_mean);
        divide_each(row, num_values, spread.mode_std);
    }
    if (job.rescale != 1.0) {
        const T by = (T)job.rescale;
        for (int64_t at = 0; at < num_values; ++at) row[at] *= by;
    }
}

// ---------------------------------------------------------------------------------------------------- sums of a sample
// Every engine that is exact adds a sample up in one order: rows in pairs, the sums of pairs in pairs and so on, what is left
// over carried along; then the columns of that one row in pairs; then the channels. PairwiseRows keeps one row of sums for
// each power of two. Bands of as many rows as a power of two give rows of sums that go on in the same order.
class PairwiseRows {
    double *const rows_;
    const int64_t size_;
    int64_t count_ = 0;
    int depth_ = 0;

public:
    static constexpr int MAX_DEPTH = 33;
    static int64_t doubles(int64_t height, int64_t size)         // of `rows`
    {
        int depth = 2;
        while (((int64_t)1 << (depth - 2)) < height) ++depth;
        return depth * size;
    }
    PairwiseRows(double *rows, int64_t size) : rows_(rows), size_(size) {}
    double *next() { return rows_ + depth_ * size_; }            // to be filled, then pushed
    void push()
    {
        ++depth_;
        for (int64_t seen = ++count_; !(seen & 1); seen >>= 1) merge();
    }
    double *row()                                                // the sums of the columns, once all rows are pushed
    {
        while (depth_ > 1) merge();
        return rows_;
    }
    double total(int num_cols, int channels)
    {
        row();
        for (int left = num_cols; left > 1; left = (left + 1) / 2) {
            for (int col = 0; col < left / 2; ++col)
                for (int channel = 0; channel < channels; ++channel)
                    rows_[col * channels + channel] = rows_[2 * col * channels + channel] + rows_[(2 * col + 1) * channels + channel];
            if (left & 1)
                for (int channel = 0; channel < channels; ++channel)
                    rows_[(left / 2) * channels + channel] = rows_[(left - 1) * channels + channel];
        }
        double sum = rows_[0];
        for (int channel = 1; channel < channels; ++channel) sum += rows_[channel];
        return sum;
    }

private:
    void merge()
    {
        double *__restrict__ under = rows_ + (depth_ - 2) * size_;
        const double *__restrict__ top = under + size_;
        for (int64_t at = 0; at < size_; ++at) under[at] += top[at];
        --depth_;
    }
};

} // namespace
