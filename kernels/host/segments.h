// Programs listed and cut into segments: gpuseq/ops/listing.py and gpuseq/ops/segments.py in one pass over a batch, equal to them
// to the bit. What a step becomes, what a segment, a stage and a round are is said there.
//
// Three calls. `list_steps` finds what Python has to make: tables of gammas, cosines, weights of kernels, looks at images. `cut_steps`
// does the rest but for copying, so that sizes are known, and `write_segments` writes all arrays into one piece of memory. What is rare
// and would take long, or is no number, is left to NumPy: then they return false.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "steps.h"

// What is handed over. gpuseq/ops/compiled/segments.py fills it.
struct CutJob {
    const int8_t *ranks;                 // by the code of a program's step: its place in the order of `_RANKED`
    const double *codes;                 // by rank: a `Code`
    const int8_t *maps;                  // by rank: a `Map` or a `Levels`
    const uint8_t *program;              // (N, S): a `ProgramStep` each
    const int64_t *rows;                 // (N,): the source image of each sample
    const uint8_t *moved;                // (N,): whether Keras' ranges come first; or null
    // What is kept of looks at source images; or null.
    const int64_t *slots;                // (N,): the place of each sample's source image; -1 where it has none
    const uint8_t *known;                // (M,): by places, whether an image has been looked at
    const uint8_t *middles;              // (M,): the mean that contrast turns about
    const uint8_t *looks;                // (M, 2, look_colours, 256): autocontrast's tables and equalize's
    uint8_t *room;                       // scratch, the same in all calls
    int64_t room_bytes;
    const double *known_turns;           // (K, 3): degrees, cosine and sine
    int64_t num_known_turns;             // K
    // Of what `list_steps` asked for, in that order.
    const uint8_t *gammas;               // (T', 256): of tables that are GIVEN
    const double *turns;                 // (R, 2): cosine and sine
    const double *given;                 // (8, G)
    const double *kernels;               // (B, 2): where the weights of both sides begin
    const double *weights;               // (W,)
    double cval;
    double composed_from;                // share of the steps from which on pairs of tables are composed
    int64_t num_samples, steps_per_sample, height, width;
    int64_t num_weights;                 // W
    int64_t num_listed, num_mixes;       // at most; `count_steps` writes them
    int32_t num_program_codes, num_ranks;
    int32_t first_table, first_map, first_other, first_erase;    // ranks
    int32_t mix, noise;                  // ranks
    int32_t look_colours;
    int32_t part_bytes;                  // a multiple of it is where each array begins
};

// What the calls find: sizes, and where in the room Python reads what it is asked for.
struct CutFound {
    int64_t num_tables, num_gammas, num_looked, num_unknown, num_turns, num_given, num_kernels;
    // (T', 2): arguments; (R,): degrees; (G, 8): arguments; (B, 3): sides and sigma; (num_ranks,): steps of each rank.
    int64_t gammas, turns, given, kernels, ranks;
    int64_t num_steps, num_stages, num_rounds, num_looks, num_slots, num_lines, num_weights, num_erases, num_noises, num_final_tables;
    int64_t rounds;                      // (num_rounds,): stages of each
    // Where the arrays begin that `write_segments` writes, in bytes: samples, stages, steps, weights, erases, tables, lines; and the
    // end of all.
    int64_t begins[8];
};

namespace {

constexpr int SAMPLE_COLUMNS = 6, STAGE_COLUMNS = 8, TABLE_BYTES = 768;
constexpr int MAX_SEGMENT_STEPS = 16, MOST_CHAINS = 5, NO_SLOT = -1;
constexpr double MOST_ARGUMENT = 1e9;    // of a table: what is larger, or no number, is left to NumPy
constexpr double FIXED_LIMIT = 32768.0, OUTERMOST = 32768.0;     // of gpuseq/ops/maps.py, and MAX_SIDE of gpuseq/ops/listing.py

// How the map of a geometric step comes about; the numbers of _MAPS in gpuseq/ops/compiled/segments.py.
enum Map { GIVEN, TURN, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, FLIP_COLUMNS, FLIP_ROWS };

// How a table comes about, as in `tables_of` of gpuseq/ops/levels.py. No table is GIVEN but gammas, because powers of other
// libraries than NumPy's differ.
enum Levels { BRIGHTNESS = 8, POSTERIZE, SOLARIZE, SOLARIZE_ADD, INVERT };

enum Role { PLAIN, FRONT, LOOK, APART };

Role role_of(int code)
{
    switch (code) {
    case BILINEAR: case SHARPNESS: case BLUR: case MIX_END: return FRONT;
    case CONTRAST: case AUTOCONTRAST: case EQUALIZE: return LOOK;
    case MIX: case CHAIN_END: return APART;
    default: return PLAIN;
    }
}

struct TableKey {
    double first, second;                // arguments
    int64_t item;
    bool is_like(const TableKey &other) const { return first == other.first && second == other.second; }
    bool operator<(const TableKey &other) const
    {
        if (first != other.first) return first < other.first;
        if (second != other.second) return second < other.second;
        return item < other.item;        // as a stable sort leaves them
    }
};

struct MapItem {
    double numbers[8];
    int64_t line;                        // number among the maps of lines, or -1
    int code;
};

struct LineItem { double offset[2], step[2]; };      // columns, rows

struct Mark { int32_t place, slot, start; uint8_t role; bool is_empty; };

struct Pair { int64_t key; int32_t follower; };

// Pieces of the room, one behind another.
struct Room {
    int64_t offset = 0;
    uint8_t *base;
    explicit Room(uint8_t *base_) : base(base_) {}
    template <class T> T *take(int64_t count)
    {
        T *piece = (T *)(void *)(base + offset);
        offset += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
        return piece;
    }
};

// All arrays of the calls; the same layout in each, since it follows from the job's sizes.
struct Work {
    int8_t *ranks;                       // of each step of the program; 0 where it is not listed
    int64_t *counts, *firsts;            // by rank
    int32_t *listed, *position;          // places by rank, and the other way round
    TableKey *table_keys;
    uint8_t *tables;                     // (T, 256)
    double *gammas, *looked, *turns, *given, *kernels;
    double *turned;                      // (R, 2): cosine and sine, where all of them are known
    uint8_t *found;                      // (F, 3, 256): tables of looks at source images
    // (N,): whether what a sample's first step looks at is known. As it was at one moment: another thread may learn it meanwhile.
    uint8_t *known;
    int32_t *table_numbers;              // by item
    MapItem *maps;
    LineItem *lines;
    double *steps;
    int32_t *first_steps;                // (N + 1,)
    double *samples, *stages, *sorted_stages;
    int32_t *owners;
    int64_t *rounds;
    Mark *marks;
    double *chain_weights;
    uint8_t *composed;                   // (·, 3, 256)
    int32_t *which, *heads, *used;
    Pair *pairs;
    int32_t *erasing;
    int64_t most;                        // steps that there can be
    int64_t num_bytes;

    Work(const CutJob &job, uint8_t *base)
    {
        Room room(base);
        const int64_t n = job.num_listed, num_places = job.num_samples * job.steps_per_sample, num_samples = job.num_samples;
        // With the ends of chains and mixes, and Keras' ranges.
        most = n + job.num_mixes * (MOST_CHAINS + 1) + num_samples;
        counts = room.take<int64_t>(job.num_ranks + 1);
        firsts = room.take<int64_t>(job.num_ranks + 1);
        ranks = room.take<int8_t>(num_places);
        listed = room.take<int32_t>(n);
        position = room.take<int32_t>(num_places);
        erasing = room.take<int32_t>(num_places);
        gammas = room.take<double>(2 * n);
        tables = room.take<uint8_t>(256 * n);
        table_keys = room.take<TableKey>(n);
        looked = room.take<double>(3 * num_samples);
        found = room.take<uint8_t>(job.slots ? TABLE_BYTES * num_samples : 0);
        known = room.take<uint8_t>(num_samples);
        turns = room.take<double>(n);
        turned = room.take<double>(2 * n);
        given = room.take<double>(8 * n);
        kernels = room.take<double>(3 * n);
        table_numbers = room.take<int32_t>(n);
        maps = room.take<MapItem>(n);
        lines = room.take<LineItem>(n);
        first_steps = room.take<int32_t>(num_samples + 1);
        samples = room.take<double>(SAMPLE_COLUMNS * num_samples);
        rounds = room.take<int64_t>(most + 1);
        chain_weights = room.take<double>(MOST_CHAINS * job.num_mixes);
        which = room.take<int32_t>(most);
        heads = room.take<int32_t>(most);
        pairs = room.take<Pair>(most);
        used = room.take<int32_t>(2 * n + num_samples);
        owners = room.take<int32_t>(most);
        marks = room.take<Mark>(most);
        steps = room.take<double>(STEP_COLUMNS * most);
        stages = room.take<double>(STAGE_COLUMNS * most);
        sorted_stages = room.take<double>(STAGE_COLUMNS * most);
        composed = room.take<uint8_t>(TABLE_BYTES * n);
        num_bytes = room.offset;
    }
};

const ProgramStep &step_at(const CutJob &job, int64_t place) { return ((const ProgramStep *)(const void *)job.program)[place]; }

bool is_listed(const CutJob &job, int rank) { return rank >= job.first_table && rank < job.first_erase; }

bool is_measured(double code) { return code >= CONTRAST && code <= EQUALIZE; }

// Pillow keeps the outermost ring of pixels of a sharpened image: there is nothing else of one below three.
bool is_dropped(const CutJob &job, double code) { return code == SHARPNESS && std::min(job.height, job.width) < 3; }

// Unlists the steps of no chain: again and again, because a mix may be one of them. False where the numbers are none of a mix.
bool leave_strays_out(const CutJob &job, const Work &work)
{
    const int64_t num_steps = job.steps_per_sample;
    for (int64_t first = 0; first < job.num_samples * num_steps; first += num_steps) {
        bool has_strays = true;
        while (has_strays) {
            has_strays = false;
            bool has_mix = false;
            for (int64_t place = first; place < first + num_steps; ++place) {
                if (work.ranks[place] != job.mix) continue;
                has_mix = true;
                const double width = step_at(job, place).args[1];
                if (!(width >= 1 && width <= MOST_CHAINS && width == std::floor(width))) return false;
            }
            if (!has_mix) break;
            int64_t head = -1;
            for (int64_t place = first; place < first + num_steps; ++place) {
                if (!is_listed(job, work.ranks[place])) continue;
                const ProgramStep &step = step_at(job, place);
                if (step.chain < 0) return false;
                if (step.chain == 0) {
                    head = place;
                    continue;
                }
                const bool is_own = head >= 0 && work.ranks[head] == job.mix && work.ranks[place] != job.mix &&
                                    step.chain <= step_at(job, head).args[1];
                if (is_own) continue;
                // As all strays of one look go at once, `head` stays what it is.
                work.ranks[place] = 0;
                has_strays = true;
            }
        }
    }
    return true;
}

template <class Level> void fill_table(uint8_t *table, Level level_of)
{
    for (int level = 0; level < 256; ++level) table[level] = (uint8_t)level_of(level);
}

// False where the arguments are none of such a table.
bool make_table(uint8_t *table, int how, double first, double second)
{
    switch (how) {
    case BRIGHTNESS: {
        const float factor = (float)first;
        fill_table(table, [=](int level) {
            const float mixed = factor * (float)level;
            return (int)(mixed < 0.0f ? 0.0f : mixed > 255.0f ? 255.0f : mixed);
        });
        return true;
    }
    case POSTERIZE: {
        if (!(first >= 0 && first <= 8)) return false;
        const int mask = 256 - (1 << (8 - (int)first));
        fill_table(table, [=](int level) { return level & mask; });
        return true;
    }
    case SOLARIZE: fill_table(table, [=](int level) { return first > level ? level : 255 - level; }); return true;
    case SOLARIZE_ADD: {
        const int addition = (int)first;
        fill_table(table, [=](int level) { return second > level ? std::min(255, level + addition) : level; });
        return true;
    }
    case INVERT: fill_table(table, [](int level) { return 255 - level; }); return true;
    default: return false;
    }
}

// False where a step has no code of a step.
bool count_steps(CutJob &job)
{
    job.num_listed = job.num_mixes = 0;
    for (int64_t place = 0; place < job.num_samples * job.steps_per_sample; ++place) {
        const int op = step_at(job, place).op;
        if (op < 0 || op >= job.num_program_codes) return false;
        const int rank = job.ranks[op];
        job.num_listed += is_listed(job, rank);
        job.num_mixes += rank == job.mix;
    }
    return true;
}

// Of policies of bins: few angles, which were asked for before.
bool find_turn(const CutJob &job, double degrees, double *turn)
{
    for (int64_t each = 0; each < job.num_known_turns; ++each) {
        const double *known = job.known_turns + 3 * each;
        if (known[0] != degrees) continue;
        turn[0] = known[1], turn[1] = known[2];
        return true;
    }
    return false;
}

bool list_steps(const CutJob &job, CutFound *found)
{
    const Work work(job, job.room);
    const int64_t n = job.num_samples * job.steps_per_sample;
    *found = CutFound{};
    bool has_mixes = false;
    for (int64_t place = 0; place < n; ++place) {
        const int rank = job.ranks[step_at(job, place).op];
        if (rank >= job.first_erase) work.erasing[found->num_erases++] = (int32_t)place;
        found->num_noises += rank == job.noise;
        work.ranks[place] = (int8_t)rank;
        has_mixes |= rank == job.mix;
    }
    if (has_mixes && !leave_strays_out(job, work)) return false;

    // By rank, and within one by place.
    std::fill(work.counts, work.counts + job.num_ranks + 1, 0);
    for (int64_t place = 0; place < n; ++place) ++work.counts[work.ranks[place]];
    int64_t first = 0;
    for (int rank = job.first_table; rank < job.first_erase; ++rank) {
        work.firsts[rank] = first;
        first += work.counts[rank];
    }
    for (int64_t place = 0; place < n; ++place) {
        const int rank = work.ranks[place];
        if (!is_listed(job, rank)) continue;
        work.position[place] = (int32_t)work.firsts[rank];
        work.listed[work.firsts[rank]++] = (int32_t)place;
    }

    // One table for all steps of the same arguments.
    int64_t item = 0;
    for (int rank = job.first_table; rank < job.first_map; ++rank) {
        const int64_t begin = item;
        for (; item < begin + work.counts[rank]; ++item) {
            const double *args = step_at(job, work.listed[item]).args;
            if (!(std::fabs(args[0]) <= MOST_ARGUMENT && std::fabs(args[1]) <= MOST_ARGUMENT)) return false;
            work.table_keys[item] = TableKey{args[0], args[1], item};
        }
        std::sort(work.table_keys + begin, work.table_keys + item);
        for (int64_t at = begin; at < item; ++at) {
            const TableKey &key = work.table_keys[at];
            if (at == begin || !key.is_like(work.table_keys[at - 1])) {
                uint8_t *table = work.tables + 256 * found->num_tables++;
                if (job.maps[rank] == GIVEN) {
                    double *args = work.gammas + 2 * found->num_gammas++;
                    args[0] = key.first, args[1] = key.second;
                } else if (!make_table(table, job.maps[rank], key.first, key.second)) {
                    return false;
                }
            }
            work.table_numbers[key.item] = (int32_t)found->num_tables - 1;
        }
    }
    bool are_known = true;
    for (int rank = job.first_map; rank < job.first_other; ++rank)
        for (const int64_t begin = item; item < begin + work.counts[rank]; ++item) {
            const double *args = step_at(job, work.listed[item]).args;
            if (job.maps[rank] == TURN) {
                are_known = are_known && find_turn(job, args[0], work.turned + 2 * found->num_turns);
                work.turns[found->num_turns++] = args[0];
            }
            if (job.maps[rank] == GIVEN) std::copy(args, args + 8, work.given + 8 * found->num_given++);
        }
    if (are_known) found->num_turns = 0;
    for (int rank = job.first_other; rank < job.first_erase; ++rank)
        for (const int64_t begin = item; item < begin + work.counts[rank]; ++item)
            if (job.codes[rank] == BLUR) {
                const double *args = step_at(job, work.listed[item]).args;
                std::copy(args, args + 3, work.kernels + 3 * found->num_kernels++);
            }
    // What is looked at of a source image: its first step, where no ranges come before it.
    std::fill(work.known, work.known + job.num_samples, 0);
    if (job.slots)
        for (int64_t sample = 0; sample < job.num_samples; ++sample) {
            if (job.moved && job.moved[sample]) continue;
            work.known[sample] = job.slots[sample] >= 0 && job.known[job.slots[sample]];
            const int64_t begin = sample * job.steps_per_sample;
            for (int64_t place = begin; place < begin + job.steps_per_sample; ++place) {
                const double code = job.codes[work.ranks[place]];
                if (!is_listed(job, work.ranks[place]) || is_dropped(job, code)) continue;
                if (is_measured(code) && !work.known[sample]) {
                    ++found->num_unknown;
                } else if (is_measured(code)) {
                    double *looked = work.looked + 3 * found->num_looked++;
                    looked[0] = code, looked[1] = (double)sample, looked[2] = step_at(job, place).args[0];
                    if (!(std::fabs(looked[2]) <= MOST_ARGUMENT)) return false;
                }
                break;
            }
        }
    const auto offset = [&](const void *piece) { return (int64_t)((const uint8_t *)piece - job.room); };
    found->gammas = offset(work.gammas), found->turns = offset(work.turns);
    found->given = offset(work.given), found->kernels = offset(work.kernels), found->ranks = offset(work.counts);
    found->rounds = offset(work.rounds);
    return true;
}

// Makes the tables of steps that look at source images of what is kept of those.
void find_tables(const CutJob &job, const Work &work, int64_t num_looked)
{
    const int64_t image_bytes = 2 * 256 * job.look_colours;
    for (int64_t each = 0; each < num_looked; ++each) {
        const double *looked = work.looked + 3 * each;
        const int code = (int)looked[0];
        const int64_t image = job.slots[(int64_t)looked[1]];
        uint8_t *table = work.found + TABLE_BYTES * each;
        if (code == CONTRAST) {
            // As `blend` of gpuseq/ops/levels.py: product and sum are rounded one by one.
            const float factor = (float)looked[2], middle = (float)job.middles[image];
            fill_table(table, [=](int level) {
                const float mixed = factor * ((float)level - middle) + middle;
                return (int)(mixed < 0.0f ? 0.0f : mixed > 255.0f ? 255.0f : mixed);
            });
            std::copy(table, table + 256, table + 256), std::copy(table, table + 256, table + 512);
            continue;
        }
        const uint8_t *kept = job.looks + image_bytes * image + (code == EQUALIZE ? image_bytes / 2 : 0);
        for (int colour = 0; colour < 3; ++colour)
            std::copy(kept, kept + 256, table + 256 * colour), kept += job.look_colours == 3 ? 256 : 0;
    }
}

// ------------------------------------------------------------------------------------------------ maps
void turn(double *map, double cos, double sin, int64_t height, int64_t width)
{
    // As `_rotate` of gpuseq/ops/maps.py, term by term.
    map[0] = map[4] = cos, map[1] = sin, map[3] = -sin;
    const double left = (double)-width / 2, top = (double)-height / 2;
    for (int axis = 0; axis < 6; axis += 3) {
        double start = map[axis] * left;
        start += map[axis + 1] * top;
        start += 0.0;
        map[axis + 2] = start + (double)(axis ? height : width) / 2;
    }
}

bool fits_fixed_point(const double *map, int64_t height, int64_t width)
{
    for (int axis = 0; axis < 6; axis += 3) {
        const double by_col = map[axis] * (double)width, by_row = map[axis + 1] * (double)height, start = map[axis + 2];
        const double corners[] = {start, by_row + start, by_col + start, by_col + by_row + start};
        for (const double corner : corners)
            if (!(std::fabs(corner) < FIXED_LIMIT)) return false;
    }
    return true;
}

bool is_whole(const double *map) { return map[0] == 1 && map[4] == 1 && map[2] == std::floor(map[2]) && map[5] == std::floor(map[5]); }

void count_in_16_bits(double *map)
{
    for (int number = 0; number < 6; ++number) map[number] *= 65536.0;
    for (int axis = 0; axis < 6; axis += 3) {
        map[axis + 2] += map[axis] * 0.5;
        map[axis + 2] += map[axis + 1] * 0.5;
    }
    for (int number = 0; number < 6; ++number) map[number] = std::floor(map[number] + 0.5);
}

// Makes the maps of all geometric steps, by rank. False where one reads so far away that all of its positions have to be listed.
bool make_maps(const CutJob &job, const Work &work, const CutFound &found, const int64_t first_item, int64_t *num_lines)
{
    const double *turns = found.num_turns ? job.turns : work.turned;
    int64_t item = first_item, num_turns = 0, num_given = 0, total_given = 0;
    for (int rank = job.first_map; rank < job.first_other; ++rank)
        if (job.maps[rank] == GIVEN) total_given += work.counts[rank];
    for (int rank = job.first_map; rank < job.first_other; ++rank)
        for (const int64_t begin = item; item < begin + work.counts[rank]; ++item) {
            const ProgramStep &step = step_at(job, work.listed[item]);
            const double number = step.args[0];
            MapItem &made = work.maps[item];
            double *map = made.numbers;
            std::fill(map, map + 8, 0.0);
            map[0] = map[4] = 1.0;
            bool is_bilinear = step.bilinear != 0;
            switch (job.maps[rank]) {
            case GIVEN:
                for (int each = 0; each < 8; ++each) map[each] = job.given[each * total_given + num_given];
                ++num_given;
                break;
            case TURN:
                turn(map, turns[2 * num_turns], turns[2 * num_turns + 1], job.height, job.width);
                ++num_turns;
                // Pillow transposes at quarter turns, whatever the interpolation.
                is_bilinear &= std::fmod(number, 90.0) != 0 || (std::fmod(number, 180.0) != 0 && job.height != job.width);
                break;
            case SHEAR_X: map[1] = number; break;
            case SHEAR_Y: map[3] = number; break;
            case TRANSLATE_X: map[2] = -number; break;
            case TRANSLATE_Y: map[5] = -number; break;
            case FLIP_COLUMNS: map[0] = -1.0, map[2] = (double)job.width, is_bilinear = false; break;
            case FLIP_ROWS: map[4] = -1.0, map[5] = (double)job.height, is_bilinear = false; break;
            }
            made.line = -1;
            made.code = is_bilinear ? BILINEAR : (int)job.codes[rank];
            if (made.code != FIXED) continue;
            const bool fits = fits_fixed_point(map, job.height, job.width);
            if (map[1] == 0 && map[3] == 0 && !(fits && is_whole(map))) {
                // Without a turn or a shear Pillow takes another loop, of doubles.
                const LineItem line = {{map[2], map[5]}, {map[0], map[4]}};
                for (int axis = 0; axis < 2; ++axis)
                    if (!std::isfinite(line.offset[axis]) || !std::isfinite(line.step[axis])) return false;
                made.code = LINES;
                made.line = *num_lines;
                map[2] = map[3] = 0.0;
                work.lines[(*num_lines)++] = line;
                continue;
            }
            if (!fits) return false;
            count_in_16_bits(map);
        }
    // Lines of columns come first, those of all maps.
    for (int64_t at = first_item; at < item; ++at) {
        MapItem &made = work.maps[at];
        if (made.line < 0) continue;
        made.numbers[0] = (double)(made.line * job.width);
        made.numbers[1] = (double)(*num_lines * job.width + made.line * job.height);
    }
    return true;
}

void write_line(int32_t *to, double offset, double step, int64_t side)
{
    // Sums of doubles, one after another, as Pillow's; clipped to just outside the image.
    double position = offset + step * 0.5;
    for (int64_t at = 0; at < side; ++at, position += step) {
        const double inside = position < -1.0 ? -1.0 : position > OUTERMOST ? OUTERMOST : position;
        to[at] = (int32_t)std::floor(inside);
    }
}

// ------------------------------------------------------------------------------------------------ steps in their order
class Emitter {
    const CutJob &job_;
    const Work &work_;
    int64_t num_tables_;

public:
    int64_t num_steps = 0, num_found = 0;
    Emitter(const CutJob &job, const Work &work, int64_t num_tables) : job_(job), work_(work), num_tables_(num_tables) {}

    void emit_sample(int64_t sample)
    {
        const int64_t first = sample * job_.steps_per_sample, last = first + job_.steps_per_sample;
        if (job_.moved && job_.moved[sample]) {
            double *row = add(KERAS);
            row[1] = (double)sample, row[2] = job_.cval;
        }
        bool has_mix = false, is_first = true;
        for (int64_t place = first; place < last && !has_mix; ++place) has_mix = work_.ranks[place] == job_.mix;
        for (int64_t place = first; place < last; ++place) {
            if (!is_listed(job_, work_.ranks[place]) || (has_mix && step_at(job_, place).chain != 0)) continue;
            double *row = emit(place);
            if (!row) continue;
            if (is_first && work_.known[sample] && is_measured(row[0])) {
                row[0] = TABLE;
                row[1] = (double)(num_tables_ + num_found++);
            }
            is_first = false;
            if (work_.ranks[place] == job_.mix) emit_chains(place, last);
        }
    }

private:
    double *add(int code)
    {
        double *row = work_.steps + STEP_COLUMNS * num_steps++;
        std::fill(row, row + STEP_COLUMNS, 0.0);
        row[0] = code;
        return row;
    }

    void emit_chains(int64_t mix, int64_t last)
    {
        const double *args = step_at(job_, mix).args;
        for (int chain = 1; chain <= (int)args[1]; ++chain) {
            for (int64_t place = mix + 1; place < last; ++place) {
                if (!is_listed(job_, work_.ranks[place])) continue;
                const int own = step_at(job_, place).chain;
                if (own == 0) break;
                if (own == chain) emit(place);
            }
            add(CHAIN_END)[1] = args[1 + chain];
        }
        add(MIX_END)[1] = args[0];
    }

    // The row of a step, or null where it changes nothing.
    double *emit(int64_t place)
    {
        const int rank = work_.ranks[place];
        const double code = job_.codes[rank];
        if (is_dropped(job_, code)) return nullptr;
        const ProgramStep &step = step_at(job_, place);
        const int64_t item = work_.position[place];
        double *row = work_.steps + STEP_COLUMNS * num_steps++;
        row[0] = code;
        std::copy(step.args, step.args + NUM_ARGUMENTS, row + 1);
        row[STEP_FILL] = step.fill;
        if (rank < job_.first_map) {
            row[1] = work_.table_numbers[item];
        } else if (rank < job_.first_other) {
            const MapItem &map = work_.maps[item];
            row[0] = map.code;
            std::copy(map.numbers, map.numbers + 8, row + 1);
        } else if (code == BLUR) {
            const double *begins = job_.kernels + 2 * (item - (work_.firsts[rank] - work_.counts[rank]));
            row[3] = begins[0], row[4] = begins[1];
        }
        return row;
    }
};

// ------------------------------------------------------------------------------------------------ tables of tables
class Composer {
    const CutJob &job_;
    const Work &work_;
    int64_t num_listed_, num_given_;

public:
    int64_t num_tables;                  // with those that were composed

    Composer(const CutJob &job, const Work &work, int64_t num_listed, int64_t num_found)
        : job_(job), work_(work), num_listed_(num_listed), num_given_(num_listed + num_found), num_tables(num_given_) {}

    const uint8_t *levels(int64_t table, int colour) const
    {
        if (table < num_listed_) return work_.tables + 256 * table;
        if (table < num_given_) return work_.found + TABLE_BYTES * (table - num_listed_) + 256 * colour;
        return work_.composed + TABLE_BYTES * (table - num_given_) + 256 * colour;
    }

    // Makes one table of tables right after another, where there are many; returns how many steps are left.
    int64_t compose(int64_t num_steps, int64_t num_ranges, bool *is_done)
    {
        int64_t num_followers = 0, longest = 0;
        for (int64_t sample = 0; sample < job_.num_samples; ++sample)
            for (int64_t at = work_.first_steps[sample]; at < work_.first_steps[sample + 1]; ++at) {
                const bool follows = at > work_.first_steps[sample] && is_table(at) && is_table(at - 1);
                work_.heads[at] = follows ? work_.heads[at - 1] : (int32_t)at;
                if (!follows) continue;
                ++num_followers;
                longest = std::max(longest, at - work_.heads[at]);
            }
        *is_done = num_followers && !((double)num_followers < job_.composed_from * (double)(num_steps - num_ranges));
        if (!*is_done) return num_steps;
        for (int64_t at = 0; at < num_steps; ++at) work_.which[at] = is_table(at) ? (int32_t)row(at)[1] : 0;
        for (int64_t distance = 1; distance <= longest; ++distance) compose_at(num_steps, distance);
        return compact();
    }

private:
    double *row(int64_t at) const { return work_.steps + STEP_COLUMNS * at; }
    bool is_table(int64_t at) const { return row(at)[0] == TABLE; }

    // The same pair once, in the order of the pairs.
    void compose_at(int64_t num_steps, int64_t distance)
    {
        int64_t num_pairs = 0;
        const int64_t num_before = num_tables;
        for (int64_t at = 0; at < num_steps; ++at)
            if (at - work_.heads[at] == distance)
                work_.pairs[num_pairs++] = Pair{work_.which[work_.heads[at]] * num_before + work_.which[at], (int32_t)at};
        std::sort(work_.pairs, work_.pairs + num_pairs, [](const Pair &one, const Pair &other) { return one.key < other.key; });
        for (int64_t each = 0; each < num_pairs; ++each) {
            const Pair &pair = work_.pairs[each];
            if (each == 0 || pair.key != work_.pairs[each - 1].key) {
                uint8_t *made = work_.composed + TABLE_BYTES * (num_tables - num_given_);
                for (int colour = 0; colour < 3; ++colour) {
                    const int read = num_given_ > num_listed_ ? colour : 0;    // those of a list are the same for all colours
                    const uint8_t *before = levels(pair.key / num_before, read), *after = levels(pair.key % num_before, read);
                    for (int level = 0; level < 256; ++level) made[256 * colour + level] = after[before[level]];
                }
                ++num_tables;
            }
            work_.which[work_.heads[pair.follower]] = (int32_t)num_tables - 1;
        }
    }

    // Leaves the followers out, and the tables that no step points at.
    int64_t compact()
    {
        int64_t kept = 0, at = 0;
        std::fill(work_.used, work_.used + num_tables, 0);
        for (int64_t sample = 0; sample < job_.num_samples; ++sample) {
            const int64_t last = work_.first_steps[sample + 1];
            work_.first_steps[sample] = (int32_t)kept;
            for (; at < last; ++at) {
                if (work_.heads[at] != at) continue;
                if (is_table(at)) {
                    row(at)[1] = work_.which[at];
                    work_.used[work_.which[at]] = 1;
                }
                if (kept != at) std::copy(row(at), row(at) + STEP_COLUMNS, row(kept));
                ++kept;
            }
        }
        work_.first_steps[job_.num_samples] = (int32_t)kept;
        int32_t number = 0;
        // From here on a table's place among those that are used, from 1 on.
        for (int64_t table = 0; table < num_tables; ++table)
            if (work_.used[table]) work_.used[table] = ++number;
        for (int64_t step = 0; step < kept; ++step)
            if (is_table(step)) row(step)[1] = work_.used[(int64_t)row(step)[1]] - 1;
        return kept;
    }
};

// ------------------------------------------------------------------------------------------------ segments
class Cutter {
    const CutJob &job_;
    const Work &work_;

public:
    int64_t num_marks = 0, num_slots = 0, num_stages = 0, num_looks = 0, num_chain_weights = 0;
    Cutter(const CutJob &job, const Work &work) : job_(job), work_(work) {}

    void cut()
    {
        int64_t *first_marks = work_.rounds;     // free until the stages are counted
        for (int64_t sample = 0; sample < job_.num_samples; ++sample) {
            first_marks[sample] = num_marks;
            mark(work_.first_steps[sample], work_.first_steps[sample + 1]);
        }
        first_marks[job_.num_samples] = num_marks;
        for (int64_t sample = 0; sample < job_.num_samples; ++sample) give_slots(first_marks[sample], first_marks[sample + 1]);
        // Those of mixes come behind all others.
        for (int64_t sample = 0; sample < job_.num_samples; ++sample) give_chains_slots(first_marks[sample], first_marks[sample + 1]);
        for (int64_t sample = 0; sample < job_.num_samples; ++sample) {
            const int64_t first = work_.first_steps[sample], last = work_.first_steps[sample + 1];
            double *numbers = work_.samples + SAMPLE_COLUMNS * sample;
            numbers[0] = (double)job_.rows[sample], numbers[1] = NO_SLOT, numbers[2] = (double)first;
            if (last > first) {
                const Mark &end = work_.marks[first_marks[sample + 1] - 1];
                numbers[1] = end.start, numbers[2] = end.place;
            }
            numbers[3] = (double)last - numbers[2];
            numbers[4] = numbers[5] = 0.0;
            add_stages(sample, first_marks[sample], first_marks[sample + 1]);
        }
    }

    // First ones of all samples first, then second ones; returns how many rounds there are.
    int64_t sort_in_rounds()
    {
        int64_t most = 0;
        for (int64_t stage = 0, place = 0; stage < num_stages; ++stage) {
            place = stage && work_.owners[stage] == work_.owners[stage - 1] ? place + 1 : 0;
            most = std::max(most, place + 1);
        }
        std::fill(work_.rounds, work_.rounds + most, 0);
        for (int64_t stage = 0, place = 0; stage < num_stages; ++stage) {
            place = stage && work_.owners[stage] == work_.owners[stage - 1] ? place + 1 : 0;
            ++work_.rounds[place];
        }
        // Where the next stage of each round goes; there are no more rounds than steps.
        int32_t *next = work_.which;
        for (int64_t round = 0, first = 0; round < most; first += work_.rounds[round++]) next[round] = (int32_t)first;
        for (int64_t stage = 0, place = 0; stage < num_stages; ++stage) {
            place = stage && work_.owners[stage] == work_.owners[stage - 1] ? place + 1 : 0;
            const double *from = work_.stages + STAGE_COLUMNS * stage;
            std::copy(from, from + STAGE_COLUMNS, work_.sorted_stages + STAGE_COLUMNS * next[place]++);
        }
        return most;
    }

private:
    double *row(int64_t at) const { return work_.steps + STEP_COLUMNS * at; }

    void mark(int64_t first, int64_t last)
    {
        int64_t begin = first;           // of the segment
        bool is_after_apart = false;
        for (int64_t at = first; at < last; ++at) {
            const Role role = role_of((int)row(at)[0]);
            const bool is_empty = at == first || is_after_apart, is_long = at > begin && (at - begin) % MAX_SEGMENT_STEPS == 0;
            if (is_empty || role != PLAIN || is_long) {
                work_.marks[num_marks++] = Mark{(int32_t)at, NO_SLOT, NO_SLOT, (uint8_t)role, is_empty};
                if (is_empty || role != PLAIN) begin = at + (role == APART);
            }
            is_after_apart = role == APART;
        }
    }

    // Two take turns in a sample, one is read while the other is written.
    void give_slots(int64_t first, int64_t last)
    {
        int64_t number = 0;
        for (int64_t at = first; at < last; ++at) {
            Mark &mark = work_.marks[at];
            if (mark.is_empty || mark.role == APART) continue;
            mark.slot = (int32_t)(num_slots + (number++ & 1));
        }
        num_slots += std::min<int64_t>(number, 2);
        for (int64_t at = first; at < last; ++at) work_.marks[at].start = work_.marks[at].slot;
    }

    // What a mix starts from and the images of its chains stay until it is done.
    void give_chains_slots(int64_t first, int64_t last)
    {
        int32_t origin = NO_SLOT;
        for (int64_t at = first; at < last; ++at) {
            Mark &mark = work_.marks[at];
            if (mark.role == APART) {
                mark.slot = (int32_t)num_slots++;
                if (row(mark.place)[0] == MIX) origin = mark.is_empty ? NO_SLOT : mark.slot;
                mark.start = origin;
            } else if (mark.is_empty && at > first) {
                mark.start = work_.marks[at - 1].start;
            }
        }
    }

    void add_stages(int64_t sample, int64_t first, int64_t last)
    {
        double *mix = nullptr;           // the step that blends, of the mix that is open
        int64_t mix_slot = 0, num_chains = 0;
        for (int64_t at = first; at < last; ++at) {
            const Mark &mark = work_.marks[at];
            double *step = row(mark.place);
            const int code = (int)step[0];
            if (!mark.is_empty || mark.role == LOOK || code == CHAIN_END) {
                const Mark &begin = work_.marks[mark.is_empty ? at : at - 1];
                double *stage = work_.stages + STAGE_COLUMNS * num_stages;
                stage[0] = begin.start, stage[1] = begin.place, stage[2] = mark.place - begin.place, stage[3] = mark.slot;
                stage[4] = stage[5] = stage[6] = 0.0;
                stage[7] = (double)job_.rows[sample];
                if (mark.role == LOOK) {
                    stage[4] = code - (CONTRAST - 1), stage[5] = (double)num_looks, stage[6] = step[1];
                    // Negative: a table that `prepare` makes, the first one -1.
                    step[0] = TABLE, step[1] = (double)(-1 - num_looks++);
                }
                work_.owners[num_stages++] = (int32_t)sample;
            }
            if (code == MIX) {
                mix_slot = mark.slot, num_chains = 0;
            } else if (code == CHAIN_END) {
                work_.chain_weights[num_chain_weights++] = step[1];
                ++num_chains;
            } else if (code == MIX_END) {
                mix = step;
                // Behind the first of a mix's slots, which holds what it starts from, come the images of its chains.
                mix[0] = MIX, mix[2] = (double)num_chains, mix[3] = (double)(mix_slot + 1);
                mix[4] = (double)(job_.num_weights + num_chain_weights - num_chains);
            }
        }
    }
};

constexpr int NUM_PARTS = 7;

// Bytes of each array, in the order of `CutFound::begins`.
void part_sizes(const CutJob &job, const CutFound &found, int64_t *sizes)
{
    sizes[0] = SAMPLE_COLUMNS * 8 * job.num_samples;
    sizes[1] = STAGE_COLUMNS * 8 * found.num_stages;
    sizes[2] = STEP_COLUMNS * 8 * found.num_steps;
    sizes[3] = 8 * found.num_weights;
    sizes[4] = (NUM_ARGUMENTS + 1) * 8 * found.num_erases;
    sizes[5] = TABLE_BYTES * found.num_final_tables;
    sizes[6] = 4 * found.num_lines;
}

bool cut_steps(const CutJob &job, CutFound *found)
{
    const Work work(job, job.room);
    int64_t num_mapped = 0;
    for (int rank = job.first_table; rank < job.first_map; ++rank) num_mapped += work.counts[rank];
    if (found->num_gammas) {
        // By rank, and so all behind one another.
        int64_t first = 0;
        for (int rank = job.first_table; rank < job.first_map && job.maps[rank] != GIVEN; ++rank)
            for (int64_t at = work.firsts[rank] - work.counts[rank]; at < work.firsts[rank]; ++at)
                first = std::max<int64_t>(first, work.table_numbers[at] + 1);
        std::copy(job.gammas, job.gammas + 256 * found->num_gammas, work.tables + 256 * first);
    }
    find_tables(job, work, found->num_looked);
    int64_t num_lines = 0;
    if (!make_maps(job, work, *found, num_mapped, &num_lines)) return false;
    found->num_lines = num_lines * (job.height + job.width);

    Emitter emitter(job, work, found->num_tables);
    int64_t num_ranges = 0;
    for (int64_t sample = 0; sample < job.num_samples; ++sample) {
        work.first_steps[sample] = (int32_t)emitter.num_steps;
        num_ranges += job.moved && job.moved[sample];
        emitter.emit_sample(sample);
    }
    work.first_steps[job.num_samples] = (int32_t)emitter.num_steps;

    Composer composer(job, work, found->num_tables, found->num_looked);
    bool is_composed = false;
    found->num_steps = composer.compose(emitter.num_steps, num_ranges, &is_composed);
    if (!is_composed)
        for (int64_t table = 0; table < composer.num_tables; ++table) work.used[table] = 1;
    found->num_final_tables = 0;
    for (int64_t table = 0; table < composer.num_tables; ++table) found->num_final_tables += work.used[table] != 0;

    Cutter cutter(job, work);
    cutter.cut();
    found->num_stages = cutter.num_stages, found->num_looks = cutter.num_looks, found->num_slots = cutter.num_slots;
    found->num_weights = job.num_weights + cutter.num_chain_weights;
    found->num_rounds = cutter.sort_in_rounds();
    for (int64_t at = 0; at < found->num_erases; ++at) {
        double *sample = work.samples + SAMPLE_COLUMNS * (work.erasing[at] / job.steps_per_sample);
        sample[5] += 1;
    }
    if (found->num_erases) {
        double first = 0;
        for (int64_t sample = 0; sample < job.num_samples; ++sample) {
            work.samples[SAMPLE_COLUMNS * sample + 4] = first;
            first += work.samples[SAMPLE_COLUMNS * sample + 5];
        }
    }
    int64_t sizes[NUM_PARTS];
    part_sizes(job, *found, sizes);
    found->begins[0] = 0;
    // Of what is empty one number goes all the same: a kernel gets no null pointer that it may add to.
    for (int part = 0; part < NUM_PARTS; ++part)
        found->begins[part + 1] =
            found->begins[part] + (std::max<int64_t>(sizes[part], 1) + job.part_bytes - 1) / job.part_bytes * job.part_bytes;
    return true;
}

// Writes all arrays, from `to` on.
void write_segments(const CutJob &job, const CutFound *found, uint8_t *to)
{
    const Work work(job, job.room);
    const int64_t *begins = found->begins;
    // What lies between two arrays goes up with them, and an empty one reads as 0.
    int64_t sizes[NUM_PARTS];
    part_sizes(job, *found, sizes);
    for (int part = 0; part < NUM_PARTS; ++part) std::fill(to + begins[part] + sizes[part], to + begins[part + 1], (uint8_t)0);
    const auto doubles = [&](int part) { return (double *)(void *)(to + begins[part]); };
    std::copy(work.samples, work.samples + SAMPLE_COLUMNS * job.num_samples, doubles(0));
    std::copy(work.sorted_stages, work.sorted_stages + STAGE_COLUMNS * found->num_stages, doubles(1));
    std::copy(work.steps, work.steps + STEP_COLUMNS * found->num_steps, doubles(2));
    std::copy(job.weights, job.weights + job.num_weights, doubles(3));
    std::copy(work.chain_weights, work.chain_weights + (found->num_weights - job.num_weights), doubles(3) + job.num_weights);
    for (int64_t at = 0; at < found->num_erases; ++at) {
        const ProgramStep &step = step_at(job, work.erasing[at]);
        double *row = doubles(4) + (NUM_ARGUMENTS + 1) * at;
        std::copy(step.args, step.args + NUM_ARGUMENTS, row);
        row[NUM_ARGUMENTS] = 0.0;
        if (job.ranks[step.op] == job.noise) row[5] = row[6] = row[7] = 0.0, row[8] = 1.0;
    }
    Composer tables(job, work, found->num_tables, found->num_looked);
    uint8_t *table_to = to + begins[5];
    for (int64_t table = 0, written = 0; written < found->num_final_tables; ++table) {
        if (!work.used[table]) continue;
        ++written;
        for (int colour = 0; colour < 3; ++colour, table_to += 256) std::memcpy(table_to, tables.levels(table, colour), 256);
    }
    int32_t *line_to = (int32_t *)(void *)(to + begins[6]);
    const int64_t num_lines = found->num_lines ? found->num_lines / (job.height + job.width) : 0;
    for (int axis = 0; axis < 2; ++axis)
        for (int64_t line = 0; line < num_lines; ++line) {
            const int64_t side = axis ? job.height : job.width;
            write_line(line_to, work.lines[line].offset[axis], work.lines[line].step[axis], side);
            line_to += side;
        }
}

} // namespace
