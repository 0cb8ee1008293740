// Many local files into one buffer, on threads of the call's own, and what the headers of those that are JPEG say. What is right
// gpuseq/files/reading.py and gpuseq/decode/headers.py say, and whatever is not ordinary is left to them: there are no messages here.
#pragma once
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#endif

// What has become of a file. What is neither read nor left may be asked for again.
enum FileState : int32_t { WAITING = 0, NO_ROOM = 1, READ = 2, LEFT = 3 };

struct FileRecord {
    int64_t path;                        // where its name begins among the names
    int64_t start, num_bytes;            // in the buffer; without room for it the size alone
    int32_t state;                       // FileState
    int32_t buffer;                      // the number of the call's buffer
    // Of a JPEG file, else 0: gpuseq.decode.headers.Header.
    int32_t width, height;
    uint8_t components, bits, is_plain, is_stored_as_rgb;
    uint8_t is_complete;                 // gpuseq.decode.headers.is_complete
    uint8_t orientation;                 // gpuseq.decode.orientation.orientation_of; 0 where only Pillow knows
    uint8_t unused[2];
};

namespace {

constexpr int64_t ALIGNMENT = 64;        // of the start of a file in the buffer
constexpr int64_t TAIL = 4096;           // bytes in which the end of the picture is looked for
constexpr size_t STACK_BYTES = 1 << 20;

// What Pillow too takes for a segment with a length: tables, frames, restart intervals, application data, comments.
bool is_plain_segment(int marker)
{
    return (marker >= 0xC0 && marker <= 0xCF && marker != 0xC8) || marker == 0xDB || marker == 0xDD ||
           (marker >= 0xE0 && marker <= 0xEF) || marker == 0xFE;
}

bool begins_with(const uint8_t *data, int64_t size, int64_t at, const char *text, int64_t length)
{
    return at + length <= size && memcmp(data + at, text, (size_t)length) == 0;
}

// The orientation of an EXIF segment's content; 1 where that has none, or one that is none, and sets `has_one`. 0 where Pillow has
// to be asked, which reads damaged directories to some point: here all of it has to be sound.
int exif_orientation(const uint8_t *data, int64_t size, bool *has_one)
{
    constexpr uint8_t UNITS[13] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8};  // bytes of a value of each of TIFF's types
    const bool is_little = begins_with(data, size, 0, "II*\0", 4);
    if (size < 8 || (!is_little && !begins_with(data, size, 0, "MM\0*", 4))) return 0;
    const auto u16 = [=](int64_t at) { return is_little ? data[at + 1] << 8 | data[at] : data[at] << 8 | data[at + 1]; };
    const auto u32 = [=](int64_t at) {
        return is_little ? (int64_t)u16(at + 2) << 16 | u16(at) : (int64_t)u16(at) << 16 | u16(at + 2);
    };
    const int64_t first = u32(4) + 2;
    if (first > size) return 0;
    const int64_t count = u16(first - 2);
    if (first + 12 * count > size) return 0;
    int orientation = 1;
    int64_t num_bytes = 0;
    for (int64_t at = first; at < first + 12 * count; at += 12) {
        const int type = u16(at + 2);
        if (type < 1 || type > 12) return 0;
        const int64_t value_bytes = u32(at + 4) * UNITS[type];
        if (value_bytes > 4) {
            num_bytes += value_bytes;
            if (num_bytes > size || u32(at + 8) + value_bytes > size) return 0;
        }
        if (u16(at) != 0x0112) continue;
        if (*has_one || type != 3 || value_bytes != 2) return 0;
        *has_one = true;
        const int value = u16(at + 8);
        orientation = value >= 1 && value <= 8 ? value : 1;
    }
    return orientation;
}

// `_jpeg` of headers.py, line by line; false where that has no header.
bool read_jpeg(const uint8_t *data, int64_t size, FileRecord *record)
{
    bool has_frame = false, has_jfif = false, has_end = false, is_odd = false;
    bool has_exif = false, has_orientation = false, has_other = false;
    int transform = -1, coding = 0, components = 0, orientation = 1;
    bool is_named_rgb = false;
    int64_t at = 2;
    while (at + 4 <= size && data[at] == 0xFF) {
        const int marker = data[at + 1];
        if (marker == 0xFF) {            // a fill byte
            at += 1;
            continue;
        }
        if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD7)) {  // markers without a length
            is_odd = is_odd || marker == 0x01;
            at += 2;
            continue;
        }
        if (marker == 0xD9 || marker == 0xDA) {  // the end, or pixels
            has_end = marker == 0xDA;
            break;
        }
        const int64_t start = at + 4;
        const int length = data[at + 2] << 8 | data[at + 3];
        is_odd = is_odd || !is_plain_segment(marker);
        if (marker == 0xE0 && begins_with(data, size, start, "JFIF\0", 5)) {
            has_jfif = true;
        } else if (marker == 0xEE && begins_with(data, size, start, "Adobe", 5)) {
            if (start + 11 >= size) return false;
            transform = data[start + 11];
        } else if (marker == 0xE1 && begins_with(data, size, start, "Exif\0\0", 6)) {
            const int64_t end = at + 2 + length;
            // Pillow puts several together.
            is_odd = is_odd || has_exif || end > size;
            has_exif = true;
            if (!is_odd) orientation = exif_orientation(data + start + 6, end - start - 6, &has_orientation);
        } else if (marker == 0xE1) {
            has_other = true;            // XMP, which counts where EXIF has no orientation
        } else if (!has_frame && marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) {
            if (start + 6 > size) return false;
            has_frame = true;
            coding = marker;
            record->bits = data[start];
            record->height = data[start + 1] << 8 | data[start + 2];
            record->width = data[start + 3] << 8 | data[start + 4];
            components = data[start + 5];
            is_named_rgb = start + 12 < size && data[start + 6] == 'R' && data[start + 9] == 'G' && data[start + 12] == 'B';
        }
        at += 2 + length;
    }
    if (!has_frame || !record->width || !record->height) return false;
    record->components = (uint8_t)components;
    record->is_plain = (components == 1 || components == 3) && coding <= 0xC2;
    record->is_stored_as_rgb = components == 3 && !has_jfif && (transform < 0 ? is_named_rgb : transform == 0);
    const bool is_known = has_end && !is_odd && (has_orientation || !has_other);
    record->orientation = is_known ? (uint8_t)orientation : 0;
    return true;
}

void read_header(const uint8_t *data, FileRecord *record)
{
    const int64_t size = record->num_bytes;
    if (!begins_with(data, size, 0, "\xff\xd8\xff", 3)) return;
    FileRecord found = *record;
    if (!read_jpeg(data, size, &found)) return;
    const int64_t first = size > TAIL ? size - TAIL : 0;
    // Backwards: it is nearly always the last two bytes.
    for (int64_t at = size - 2; at >= first && !found.is_complete; --at) found.is_complete = data[at] == 0xFF && data[at + 1] == 0xD9;
    *record = found;
}

#if defined(__unix__) || defined(__APPLE__)

// One call. It lies on the heap, because a thread that starts late, on a machine that is busy, may look at it after the call.
struct FileBatch {
    const char *names;
    FileRecord *records;
    int64_t count;
    uint8_t *room;
    int64_t room_bytes;
    int32_t buffer;
    int64_t largest;                     // bytes of a file; larger ones are left
    int64_t begun, most;                 // nanoseconds
    std::atomic<int64_t> next{0}, taken; // the next file, and bytes of the room
    std::atomic<bool> stop{false};
    std::atomic<int> num_unstarted;      // threads that may still be started
    std::atomic<int> num_holders{1};     // threads that may look at this, the caller's included
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
    int num_working = 0;                 // threads that read, without the caller's; under the lock
};

int64_t now()
{
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// Where so many bytes begin that nobody else gets; -1 where they do not fit. What does not fit takes nothing from smaller files.
int64_t take(FileBatch *batch, int64_t num_bytes)
{
    const int64_t aligned = (num_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    int64_t start = batch->taken.load(std::memory_order_relaxed);
    do {
        if (start + num_bytes > batch->room_bytes) return -1;
    } while (!batch->taken.compare_exchange_weak(start, start + aligned, std::memory_order_relaxed));
    return start;
}

// Reads what `file` is opened as, and returns what has become of it.
int32_t read_open(FileBatch *batch, FileRecord *record, int file)
{
    struct stat status;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > batch->largest) return LEFT;
    record->num_bytes = status.st_size;
    // One byte more than the size, so that a single short read proves the end.
    const int64_t wanted = record->num_bytes + 1;
    record->start = take(batch, wanted);
    if (record->start < 0) return record->state == NO_ROOM ? LEFT : NO_ROOM;  // for a second time: it grows
    uint8_t *to = batch->room + record->start;
    int64_t got = 0;
    do {
        const ssize_t more = read(file, to + got, (size_t)(wanted - got));
        if (more < 0) {
            if (errno == EINTR) batch->stop.store(true, std::memory_order_relaxed);
            return LEFT;
        }
        if (more == 0) break;
        got += more;
    } while (got < record->num_bytes);
    if (got != record->num_bytes) return LEFT;  // it has changed meanwhile, or does not know its size
    read_header(to, record);
    record->buffer = batch->buffer;
    return READ;
}

void read_file(FileBatch *batch, FileRecord *record)
{
    // Without O_NONBLOCK a named pipe would be waited for.
    const int file = open(batch->names + record->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        // Only the caller gets signals: its Python is to see them soon.
        if (errno == EINTR) batch->stop.store(true, std::memory_order_relaxed);
        record->state = LEFT;
        return;
    }
    record->state = read_open(batch, record, file);
    close(file);
}

void read_some(FileBatch *batch)
{
    int64_t at;
    while (!batch->stop.load(std::memory_order_relaxed) && (at = batch->next.fetch_add(1, std::memory_order_relaxed)) < batch->count) {
        if (batch->records[at].state >= READ) continue;
        read_file(batch, batch->records + at);
        // After a file and not before: each call reads one at least, so that calls come to an end.
        if (now() - batch->begun > batch->most) batch->stop.store(true, std::memory_order_relaxed);
    }
}

void drop(FileBatch *batch)
{
    if (batch->num_holders.fetch_sub(1) != 1) return;
    pthread_mutex_destroy(&batch->lock);
    pthread_cond_destroy(&batch->changed);
    delete batch;
}

void *run(void *argument);

// Each thread starts the one after it, so that no one of them starts them all, and files in the memory of the system are read
// before many have been.
void start_next(FileBatch *batch)
{
    if (batch->stop.load(std::memory_order_relaxed)) return;
    if (batch->next.load(std::memory_order_relaxed) + 1 >= batch->count || batch->num_unstarted.fetch_sub(1) <= 0) return;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    // The system keeps small stacks for the next call, and takes large ones back.
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    batch->num_holders.fetch_add(1);
    pthread_t thread;
    // Where there may be no more threads, those that there are do all.
    if (pthread_create(&thread, &attributes, run, batch) != 0) drop(batch);
    pthread_attr_destroy(&attributes);
}

void *run(void *argument)
{
    FileBatch *batch = (FileBatch *)argument;
    pthread_mutex_lock(&batch->lock);
    ++batch->num_working;
    pthread_mutex_unlock(&batch->lock);
    // After the call all files are taken, or `stop` is set, so that a thread that comes late touches neither records nor room.
    start_next(batch);
    read_some(batch);
    pthread_mutex_lock(&batch->lock);
    if (--batch->num_working == 0) pthread_cond_signal(&batch->changed);
    pthread_mutex_unlock(&batch->lock);
    drop(batch);
    return nullptr;
}

int64_t read_files(const char *names, FileRecord *records, int64_t count, uint8_t *room, int64_t room_bytes, int64_t taken,
                   int32_t buffer, int64_t largest, int64_t most, int32_t num_threads)
{
    FileBatch *batch = new (std::nothrow) FileBatch;
    int64_t at = 0;
    for (FileRecord *record = records; record < records + count; ++record) {
        record->path = at;
        at += (int64_t)strlen(names + at) + 1;
        if (!batch) record->state = record->state == READ ? READ : LEFT;
    }
    if (!batch) return taken;
    batch->names = names;
    batch->records = records;
    batch->count = count;
    batch->room = room;
    batch->room_bytes = room_bytes;
    batch->taken = taken;
    batch->buffer = buffer;
    batch->largest = largest;
    batch->begun = now();
    batch->most = most;
    batch->num_unstarted = num_threads - 1;
    // Signals are for the threads that Python knows; those of a fault go to the thread that has it whatever is asked.
    sigset_t all, before;
    sigfillset(&all);
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&all, signal);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    start_next(batch);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    read_some(batch);
    // For those that are reading. Nobody waits for threads that have not begun: where all cores are busy they take longer to
    // start than the files take.
    pthread_mutex_lock(&batch->lock);
    while (batch->num_working) pthread_cond_wait(&batch->changed, &batch->lock);
    pthread_mutex_unlock(&batch->lock);
    const int64_t taken_now = batch->taken;
    drop(batch);
    return taken_now;
}

#else

int64_t read_files(const char *, FileRecord *records, int64_t count, uint8_t *, int64_t, int64_t taken, int32_t, int64_t, int64_t, int32_t)
{
    for (int64_t at = 0; at < count; ++at) records[at].state = LEFT;
    return taken;
}

#endif

} // namespace
