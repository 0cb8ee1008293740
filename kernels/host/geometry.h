// The text that both engines are made of, kernels/geometry.cuh: the table, the map and the borders.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "job.h"

#define DEVICE [[maybe_unused]] static inline
#define FILL_NEAREST 0           // as in common.cuh
#define FILL_CONSTANT 1
#define FILL_REFLECT 2
#define FILL_WRAP 3

// A kernel has the convention and the fill mode as macros, the job has them as fields: the text is taken twice.
namespace {
using std::fma;
using std::trunc;
namespace keras_reflect {
#define CORRECTED 0
#define FILL_MODE FILL_REFLECT
#include "../geometry.cuh"
#undef CORRECTED
#undef FILL_MODE
} // namespace keras_reflect
namespace corrected_wrap {
#define CORRECTED 1
#define FILL_MODE FILL_WRAP
#include "../geometry.cuh"
#undef CORRECTED
#undef FILL_MODE
} // namespace corrected_wrap
namespace table = keras_reflect;         // table::THETA and its like

// What a sample's row of the table says about its geometry.
struct Placing {
    int64_t source_index;
    bool has_affine, flip_rows, flip_cols;
    double inverse_23[2][3];             // (row, col) of the batch -> (row, col) of the source
};

inline Placing place(const Job &job, int64_t sample)
{
    Placing placing = {sample, false, false, false, {}};
    if (!job.table) return placing;
    const double *row = job.table + sample * table::NUM_COLUMNS;
    std::memcpy(&placing.source_index, row + table::SOURCE_INDEX, sizeof placing.source_index);
    placing.flip_rows = job.has_flip && row[table::FLIP_VERTICAL] != 0.0;
    placing.flip_cols = job.has_flip && row[table::FLIP_HORIZONTAL] != 0.0;
    placing.has_affine = job.has_affine && (row[table::THETA] != 0.0 || row[table::TX] != 0.0 || row[table::TY] != 0.0
                                            || row[table::SHEAR] != 0.0 || row[table::ZX] != 1.0 || row[table::ZY] != 1.0);
    if (placing.has_affine) {
        const auto build = job.corrected ? corrected_wrap::build_inverse : keras_reflect::build_inverse;
        build(row, job.height, job.width, placing.inverse_23);
    }
    return placing;
}

// A coordinate brought back into the image, for the two modes that do so; beyond the reach of "constant" nothing is read.
inline double fold(double value, int size, int fill_mode)
{
    return fill_mode == FILL_REFLECT ? keras_reflect::map_coordinate(value, size) : corrected_wrap::map_coordinate(value, size);
}

} // namespace
