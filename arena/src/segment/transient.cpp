// Shared segments that go with their last process.
//
// Invariant: a transient segment's name is removed only by whoever holds its
// open lock for writing and has seen that nobody who stays has it open and
// that no message about it may still be read. Who opens it takes the same lock
// first, and then asks whether the name is still there.
#include "segment/opener.hpp"

#include <algorithm>
#include <cerrno>

#include <dirent.h>
#include <unistd.h>

namespace ndarena::segment {
namespace {

constexpr unsigned retire_timeout_ms = 1000;
constexpr const char* directory = "/dev/shm/";
constexpr const char* prefix = "ndarena-";

bool take_open_lock(int fd, unsigned timeout_ms) noexcept {
    const std::uint64_t deadline = platform::monotonic_milliseconds() + timeout_ms;
    while (platform::try_lock_byte(fd, lock_base + open_lock_byte) !=
           platform::lock_answer::taken) {
        if (platform::monotonic_milliseconds() >= deadline) {
            return false;
        }
        (void)platform::sleep_milliseconds(1);
    }
    return true;
}

template <class T>
bool read_at(int fd, std::uint64_t offset, T& value) noexcept {
    return ::pread(fd, &value, sizeof value, static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(sizeof value);
}

// Whether a message may still be read, nobody being alive. Starts the clock of
// those whose sender was not known to be gone.
bool has_readable_messages(int fd, const geometry& geo, std::uint64_t grace_ms) noexcept {
    const std::uint64_t now = std::max<std::uint64_t>(platform::monotonic_milliseconds(), 1);
    std::uint32_t bump = 0;
    if (!read_at(fd, geo.control_offset() + offsetof(control_page, transit_bump), bump)) {
        return false;
    }
    bool readable = false;
    for (std::uint32_t i = 0; i < std::min(bump, geo.transit_count); ++i) {
        const std::uint64_t at = geo.transit_offset() + i * sizeof(transit_token);
        transit_token token{};
        if (!read_at(fd, at, token) || token.state == 0) {
            continue;
        }
        if (token.noticed == 0) {
            token.noticed = now;
            const std::uint64_t field = at + offsetof(transit_token, noticed);
            (void)!::pwrite(fd, &token.noticed, sizeof token.noticed, static_cast<off_t>(field));
        }
        readable = readable || std::max(now, token.noticed) - token.noticed < grace_ms;
    }
    return readable;
}

// True if the segment was nobody's and its name is gone.
bool sweep_one(const std::string& path, std::uint64_t grace_ms) {
    auto fd = platform::open_file(path, true, false);
    if (!fd) {
        return false;
    }
    file_header header{};
    geometry geo;
    auto id = platform::identify(fd->get(), path);
    if (!id || !read_at(fd->get(), 0, header) || !check_header(header, true, geo, path) ||
        (header.features_compatible & feature::transient) == 0 || !take_open_lock(fd->get(), 0)) {
        return false;
    }
    // The lock goes with the descriptor.
    if (platform::is_locked_by_other(fd->get(), lock_base, geo.slot_count) ||
        has_readable_messages(fd->get(), geo, grace_ms)) {
        return false;
    }
    auto named = platform::open_file(path, false, false);
    return named && platform::is_same_file(named->get(), *id) && ::unlink(path.c_str()) == 0;
}

// Names that this process left to others who stayed. Never destroyed: heaps may
// go after static destructors have run.
struct left_behind {
    platform::mutex mutex;
    std::vector<std::string> paths;
};
left_behind& all_left_behind() noexcept {
    static auto* all = new left_behind;
    return *all;
}

void leave_behind(const std::string& path) noexcept {
    left_behind& all = all_left_behind();
    platform::lock_guard guard(all.mutex);
    try {
        if (std::find(all.paths.begin(), all.paths.end(), path) == all.paths.end()) {
            all.paths.push_back(path);
        }
    } catch (...) {  // then the next process that sweeps finds it
    }
}

}  // namespace

bool segment::is_transient() const noexcept {
    return kind_ == segment_kind::shared && (header_.features_compatible & feature::transient) != 0;
}

void segment::retire() noexcept {
    if (!is_transient() || !writable_ || !descriptor_intact() ||
        !take_open_lock(fd_.get(), retire_timeout_ms)) {
        return;
    }
    slot_at(slot_).state.store(slot_leaving, std::memory_order_release);
    // The clock of what it has sent starts now, not when somebody notices.
    auto* tokens = reinterpret_cast<transit_token*>(base_ + geo_.transit_offset());
    const std::uint64_t now = std::max<std::uint64_t>(platform::monotonic_milliseconds(), 1);
    for (std::uint32_t i = 0; i < std::min(control().transit_bump, geo_.transit_count); ++i) {
        if (tokens[i].state != 0 && tokens[i].sender == owner_word_ && tokens[i].noticed == 0) {
            tokens[i].noticed = now;
        }
    }
    bool stays = __atomic_load_n(&control().in_transit, __ATOMIC_RELAXED) != 0;
    for (std::uint32_t i = 0; i < geo_.slot_count && !stays; ++i) {
        stays = i != slot_ && slot_at(i).state.load(std::memory_order_acquire) == slot_in_use &&
                is_alive(i);
    }
    if (stays) {
        leave_behind(path_);
    } else {
        (void)unlink();
    }
    platform::unlock_byte(fd_.get(), lock_base + open_lock_byte);
}

void sweep_left_behind(std::uint64_t grace_ms) noexcept {
    left_behind& all = all_left_behind();
    if (!all.mutex.try_lock()) {
        return;
    }
    try {
        for (const std::string& path : all.paths) {
            (void)sweep_one(path, grace_ms);
        }
    } catch (...) {
    }
    all.mutex.unlock();
}

std::vector<std::string> sweep_transient(std::uint64_t grace_ms) {
    std::vector<std::string> removed;
    DIR* dir = ::opendir(directory);
    if (dir == nullptr) {
        return removed;
    }
    const std::string wanted = prefix;
    while (const dirent* entry = ::readdir(dir)) {
        const std::string name = entry->d_name;
        if (name.compare(0, wanted.size(), wanted) == 0 && sweep_one(directory + name, grace_ms)) {
            removed.push_back(name);
        }
    }
    ::closedir(dir);
    return removed;
}

}  // namespace ndarena::segment
