// What the resize is handed: one 8-bit image, as Pillow holds it or as an array. gpuseq/ops/compiled fills it.
#pragma once
#include <cstdint>

// How a line of pixels becomes one of another length: gpuseq.ops.resample.LineTable. Without `first` it stays as it is.
struct LineTable {
    const int32_t *first, *count;        // (length,)
    const int32_t *weights;              // (taps, length), in units of 2^-22
    int32_t length, taps;
};

struct ResizeJob {
    const uint8_t *source;               // (height, width, C), pixels of pixel_bytes each
    int64_t source_pitch;                // bytes from one row to the next
    uint8_t *target;                     // (rows, cols, C), C-contiguous
    LineTable across, down;
    const int32_t *rows, *cols;          // nearest: the pixel that each of the target takes; else null
    int32_t height, width, channels, pixel_bytes;
    int32_t target_rows, target_cols;
    int32_t down_first;                  // whether the columns are resized before the rows
};

struct ResizeEngine {
    int64_t (*scratch_bytes)(const ResizeJob *);
    void (*resize)(const ResizeJob *, unsigned char *scratch);
};
