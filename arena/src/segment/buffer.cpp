// Segments over a caller's buffer.
#include "segment/opener.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <dirent.h>
#include <unistd.h>

namespace ndarena::segment {
namespace {

constexpr std::uint64_t zero_probe = std::uint64_t{64} << 10;

bool is_zero(const std::byte* p, std::uint64_t size) noexcept {
    // Compares the memory with itself, one byte on, after one zero byte.
    return size == 0 || (p[0] == std::byte{0} && std::memcmp(p, p + 1, size - 1) == 0);
}

bool swap_in_use() {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> swaps(std::fopen("/proc/swaps", "re"),
                                                                &std::fclose);
    int lines = 0;
    for (int c = 0; swaps && (c = std::fgetc(swaps.get())) != EOF;) {
        lines += c == '\n' ? 1 : 0;
    }
    return !swaps || lines > 1;
}

// Zero throughout, looked at without bringing untouched pages to life: where
// no page can be in swap, one that is not in memory was never written.
bool is_zero_sparsely(std::byte* p, std::uint64_t size, bool anonymous) {
    if (!anonymous || swap_in_use()) {
        return is_zero(p, size);
    }
    static constexpr std::uint64_t step = std::uint64_t{2} << 20;
    for (std::uint64_t at = 0; at < size; at += step) {
        const std::uint64_t part = std::min(step, size - at);
        if (platform::resident_bytes(p + at, part) != 0 && !is_zero(p + at, part)) {
            return false;
        }
    }
    return true;
}

bool data_is_zero(int fd, std::uint64_t file_base, std::byte* p, std::uint64_t size) {
    std::uint64_t at = 0;
    while (at < size) {
        const off_t data = ::lseek(fd, static_cast<off_t>(file_base + at), SEEK_DATA);
        if (data < 0) {
            return errno == ENXIO ? true : is_zero(p + at, size - at);
        }
        const std::uint64_t start = static_cast<std::uint64_t>(data) - file_base;
        if (start >= size) {
            return true;
        }
        const off_t hole = ::lseek(fd, data, SEEK_HOLE);
        const std::uint64_t end =
            hole < 0 ? size : std::min(size, static_cast<std::uint64_t>(hole) - file_base);
        if (!is_zero(p + start, end - start)) {
            return false;
        }
        at = end;
    }
    return true;
}

// The descriptor's file is the one that the mapping shows. On btrfs the kernel
// shows another device number for mappings than for files.
bool is_mapped_file(int fd, const platform::mapping_info& info) {
    auto id = platform::identify(fd, info.path);
    return id && id->inode == info.inode && (id->device == info.device || platform::is_btrfs(fd));
}

// A descriptor of this process that refers to the file of the mapping.
platform::unique_fd find_descriptor(const platform::mapping_info& info) {
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir("/proc/self/fd"), &::closedir);
    while (dir) {
        const dirent* entry = ::readdir(dir.get());
        if (entry == nullptr) {
            break;
        }
        const int fd = std::atoi(entry->d_name);
        if (fd > 2 && is_mapped_file(fd, info)) {
            if (auto copy = platform::reopen(fd, true)) {
                return std::move(*copy);
            }
        }
    }
    return {};
}

// Slot 0 of a buffer without lock bytes is in use by another process that
// still runs. A recycled process number errs on the safe side.
bool owner_lives(const segment& seg) noexcept {
    const slot_entry& owner = seg.slot_at(0);
    return owner.state.load(std::memory_order_relaxed) != 0 &&
           owner.pid != platform::process_id() && platform::process_exists(owner.pid);
}

// Somebody else has the arena in this buffer open for writing.
bool is_in_use(const segment& seg) noexcept {
    return seg.is_solo() ? seg.pages() == backing::shared_memory && owner_lives(seg)
                         : seg.other_slots_alive();
}

}  // namespace

void opener::find_backing(segment& seg, bool plain_memory) {
    seg.solo_ = true;
    seg.backing_ = backing::opaque;
    const auto info = platform::describe_mapping(seg.base_, seg.mapped_size_);
    if (!info.found || info.path.rfind("/dev/", 0) == 0) {
        // "/dev/zero (deleted)" is anonymous shared memory, the rest devices.
        if (info.found && info.shared && info.path.rfind("/dev/zero", 0) == 0) {
            seg.backing_ = plain_memory ? backing::shared_memory : backing::opaque;
            return;
        }
        if (info.path.rfind("/dev/shm/", 0) != 0) {
            return;
        }
    }
    if (info.inode == 0) {
        seg.backing_ = info.shared ? backing::shared_memory : backing::private_memory;
        return;
    }
    if (!info.shared) {
        return;  // a private view of a file: discarding would bring the file back
    }
    seg.backing_ = backing::shared_memory;
    auto fd = find_descriptor(info);
    if (!fd) {
        if (auto opened = platform::open_file(info.path, true, true);
            opened && is_mapped_file(opened->get(), info)) {
            fd = std::move(*opened);
        }
    }
    if (!fd || info.file_offset % platform::page_size != 0 ||
        !platform::require_usable_filesystem(fd.get(), info.path)) {
        return;
    }
    auto id = platform::identify(fd.get(), info.path);
    if (!id) {
        return;
    }
    seg.fd_ = std::move(fd);
    seg.id_ = *id;
    seg.file_base_ = info.file_offset;
    seg.path_ = info.path;
    seg.backing_ = backing::file;
    seg.solo_ = false;
}

result<std::unique_ptr<segment>> opener::over_buffer(const segment_options& options) {
    if (options.buffer == nullptr) {
        return error{errc::invalid, 0, "the buffer is empty", {}};
    }
    const auto address = reinterpret_cast<std::uintptr_t>(options.buffer);
    const std::uint64_t skip = base::align_up(address, granule) - address;
    std::unique_ptr<segment> seg(new segment);
    seg->kind_ = segment_kind::buffer;
    seg->writable_ = true;
    seg->base_ = static_cast<std::byte*>(options.buffer) + skip;
    const std::uint64_t usable = base::align_down(options.buffer_size - skip, granule);
    seg->mapped_size_ = std::min(usable, max_capacity);
    find_backing(*seg, options.plain_memory);
    if (!seg->solo_) {
        if (auto ok = take_open_lock(*seg, true); !ok) {
            return ok.err();
        }
    }
    if (auto ok = attach_or_format(*seg, options); !ok) {
        return ok.err();
    }
    if (!seg->solo_) {
        if (auto ok = take_slot(*seg); !ok) {
            return ok.err();
        }
    } else {
        slot_entry& entry = seg->slot_at(0);
        entry.incarnation += 1;
        entry.pid = platform::process_id();
        entry.state.store(1, std::memory_order_release);
        seg->owner_word_ = slot_lock::make_word(0, entry.incarnation);
    }
    return seg;
}

result<void> opener::attach_or_format(segment& seg, const segment_options& options) {
    std::memcpy(&seg.header_, seg.base_, sizeof seg.header_);
    const bool is_arena = seg.header_.magic == segment_magic && !options.format_buffer;
    if (is_arena) {
        if (auto ok = check_header(seg.header_, true, seg.geo_, seg.path_); !ok) {
            return ok;
        }
        if (options.alignment != 0 && options.alignment != seg.header_.alignment) {
            return error{errc::invalid, 0,
                         "the buffer holds an arena with alignment " +
                             std::to_string(seg.header_.alignment) + "; leave alignment out",
                         seg.path_};
        }
        if (seg.geo_.min_capacity() > seg.mapped_size_) {
            return error{errc::corruption, 0, "the buffer is shorter than the arena in it",
                         seg.path_};
        }
        const control_page& c = seg.control();
        const platform::instance_id then{c.boot, c.device, c.inode, c.inode_generation, c.mount};
        const platform::instance_id now = seg.solo_ ? then : platform::instance_of(seg.fd_.get());
        if (seg.solo_ && seg.backing_ == backing::shared_memory && owner_lives(seg)) {
            return error{errc::exists,
                         EBUSY,
                         "this anonymous buffer holds the arena of another live process (pid " +
                             std::to_string(seg.slot_at(0).pid) +
                             "); share a file or a named segment instead",
                         {}};
        }
        seg.deserted_ =
            seg.solo_ || !platform::is_locked_by_other(seg.fd_.get(), lock_base + seg.file_base_,
                                                       seg.geo_.slot_count);
        const bool same = seg.solo_ || now.is_certainly(then);
        seg.reset_ = seg.deserted_ && (!same || c.initialized != 1);
        seg.requested_capacity_ = seg.reset_ ? seg.mapped_size_ : c.capacity;
        if (seg.reset_) {
            return {};
        }
        if (c.capacity > seg.mapped_size_) {
            return error{errc::corruption, 0, "the buffer is shorter than the arena in it",
                         seg.path_};
        }
        return check_control(seg);
    }
    const bool anonymous = seg.solo_ && (seg.backing_ == backing::shared_memory ||
                                         seg.backing_ == backing::private_memory);
    geometry old;
    if (options.format_buffer && seg.header_.magic == segment_magic &&
        check_header(seg.header_, true, old, seg.path_)) {
        seg.geo_ = old;
        if (old.min_capacity() <= seg.mapped_size_ && is_in_use(seg)) {
            return error{errc::exists, EBUSY,
                         "the buffer holds an arena that another process is using; it was left "
                         "untouched",
                         seg.path_};
        }
    }
    // The bytes before and after what can be used are looked at, never written.
    const auto* all = static_cast<const std::byte*>(options.buffer);
    const std::byte* end = seg.base_ + seg.mapped_size_;
    bool zero = is_zero(all, static_cast<std::uint64_t>(seg.base_ - all)) &&
                is_zero(end, static_cast<std::uint64_t>(all + options.buffer_size - end)) &&
                is_zero(seg.base_, std::min(zero_probe, seg.mapped_size_));
    if (zero) {
        zero = seg.backing_ == backing::file
                   ? data_is_zero(seg.fd_.get(), seg.file_base_, seg.base_, seg.mapped_size_)
                   : is_zero_sparsely(seg.base_, seg.mapped_size_, anonymous);
    }
    if (!zero && !options.format_buffer) {
        return error{errc::format, 0,
                     "the buffer holds neither an arena nor only zeros; it was left untouched. "
                     "Pass format=True to overwrite it",
                     seg.path_};
    }
    seg.geo_ = geometry::for_capacity(seg.mapped_size_);
    seg.requested_capacity_ = seg.mapped_size_;
    if (seg.geo_.min_capacity() > seg.mapped_size_) {
        return error{errc::invalid, 0,
                     "an arena needs at least " + base::human_size(seg.geo_.min_capacity()) +
                         ", the buffer has " + base::human_size(seg.mapped_size_),
                     seg.path_};
    }
    make_header(seg.header_, seg.geo_, options.alignment != 0 ? options.alignment : granule,
                new_uuid(), platform::unix_time(), feature::fixed_size);
    const int rc = seg.extend(0, seg.geo_.data_offset() + seg.geo_.chunk_bytes());
    if (rc != 0) {
        return platform::system_error("cannot reserve space in the buffer", rc, seg.path_);
    }
    if (!zero) {
        std::memset(seg.base_, 0, seg.geo_.data_offset() + seg.geo_.chunk_bytes());
    }
    std::memcpy(seg.base_, &seg.header_, sizeof seg.header_);
    seg.reset_ = true;
    seg.deserted_ = true;
    seg.pristine_ = zero;
    return {};
}

}  // namespace ndarena::segment
