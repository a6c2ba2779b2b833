// Files and shared-memory segments.
#include "segment/opener.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <unistd.h>

namespace ndarena::segment {
namespace {

constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;

std::uint64_t default_capacity(int fd) noexcept {
    // Most of what the file system has free; sparse, so it costs nothing.
    const std::uint64_t room = platform::free_space(fd) / 10 * 9;
    return std::clamp(base::align_down(room, mebibyte), 16 * mebibyte, default_reserve);
}

}  // namespace

std::array<std::uint8_t, 16> new_uuid() noexcept {
    std::array<std::uint8_t, 16> uuid{};
    for (std::size_t half = 0; half < 2; ++half) {
        const std::uint64_t r = platform::random_u64();
        std::memcpy(uuid.data() + 8 * half, &r, sizeof r);
    }
    uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0FU) | 0x40U);  // RFC 9562, version 4
    uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3FU) | 0x80U);
    return uuid;
}

result<void> check_options(const segment_options& o) {
    if (o.alignment != 0 && (!base::is_power_of_two(o.alignment) || o.alignment > max_alignment)) {
        return error{
            errc::invalid, 0,
            "alignment must be a power of two up to 2 MiB, not " + std::to_string(o.alignment),
            o.path};
    }
    if (o.capacity > max_capacity) {
        return error{errc::invalid, 0,
                     "capacity must be at most " + base::human_size(max_capacity) + ", not " +
                         base::human_size(o.capacity),
                     o.path};
    }
    const std::uint64_t least = geometry::for_capacity(o.capacity).min_capacity();
    const std::uint64_t given = o.kind == segment_kind::buffer ? o.buffer_size : o.capacity;
    if ((given != 0 || o.kind == segment_kind::buffer) && given < least) {
        return error{errc::invalid, 0,
                     "an arena needs at least " + base::human_size(least) + ", " +
                         base::human_size(given) + " is too small",
                     o.path};
    }
    if (o.kind == segment_kind::shared &&
        (o.path.empty() || o.path.size() > 200 || o.path.find('/') != std::string::npos)) {
        return error{errc::invalid, 0,
                     "the name of a shared segment is 1 to 200 characters without '/'", o.path};
    }
    return {};
}

// Writes the header and makes an empty, committed start of the file.
result<void> opener::format_file(segment& seg, const segment_options& options) {
    seg.requested_capacity_ = base::align_up(
        options.capacity != 0 ? options.capacity : default_capacity(seg.fd_.get()), format_page);
    seg.geo_ = geometry::for_capacity(seg.requested_capacity_);
    make_header(seg.header_, seg.geo_, options.alignment != 0 ? options.alignment : granule,
                new_uuid(), platform::unix_time(), options.transient ? feature::transient : 0);
    const std::uint64_t first = seg.geo_.data_offset();
    const int rc = seg.extend(0, first + seg.geo_.chunk_bytes());
    if (rc != 0) {
        return platform::system_error("cannot reserve space for the arena", rc, seg.path_);
    }
    // A ceiling that nobody asked for gives way to a limit on addresses.
    const std::uint64_t least = options.capacity != 0 ? seg.requested_capacity_ : 16 * mebibyte;
    if (auto mapped = map_new(seg, least, seg.path_); !mapped) {
        return mapped;
    }
    std::memcpy(seg.base_, &seg.header_, sizeof seg.header_);
    seg.reset_ = true;
    seg.deserted_ = true;
    seg.pristine_ = true;
    return {};
}

result<void> opener::map_new(segment& seg, std::uint64_t least, const std::string& shown) {
    // Room to grow, but not so much that a hundred arenas fill the address space.
    const std::uint64_t roomy =
        std::clamp(seg.requested_capacity_ * 64, least_reserve, default_reserve);
    const std::uint64_t reserve = std::max(seg.requested_capacity_, roomy);
    auto source = seg.mapping_source();
    if (!source) {
        return source.err();
    }
    auto mapped = platform::mapped_region::map_file(source->get(), reserve, seg.requested_capacity_,
                                                    least, seg.writable_, shown);
    if (!mapped) {
        return mapped.err();
    }
    seg.requested_capacity_ = std::min(seg.requested_capacity_, mapped->size());
    seg.owned_ = std::move(*mapped);
    seg.base_ = seg.owned_.data();
    seg.mapped_size_ = seg.owned_.size();
    // A core dump would read in every hole of the file.
    (void)platform::exclude_from_dump(seg.base_, seg.mapped_size_);
    return {};
}

result<void> opener::take_open_lock(segment& seg, bool exclusive) {
    const std::uint64_t byte = lock_base + seg.file_base_ + open_lock_byte;
    const std::uint64_t deadline = platform::monotonic_milliseconds() + open_timeout_ms;
    bool given_up = false;
    for (;;) {
        switch (exclusive ? platform::try_lock_byte(seg.fd_.get(), byte)
                          : platform::try_share_byte(seg.fd_.get(), byte)) {
            case platform::lock_answer::taken:
                seg.opening_ = true;
                return {};
            case platform::lock_answer::failed:
                return platform::system_error(
                    "cannot lock the arena (does this file system support locks?)", errno,
                    seg.path_);
            case platform::lock_answer::busy:
                break;
        }
        if (given_up || platform::monotonic_milliseconds() >= deadline) {
            return error{errc::lock_timeout, 0,
                         "another process has been opening this arena for " +
                             std::to_string(open_timeout_ms / 1000) +
                             " s; look whether it is stopped",
                         seg.path_};
        }
        given_up = platform::wait_is_given_up(platform::sleep_milliseconds(1));
    }
}

result<void> opener::take_slot(segment& seg) {
    auto copy = platform::reopen(seg.fd_.get(), true);
    if (!copy) {
        return copy.err();
    }
    seg.spare_ = std::move(*copy);
    // The slot's byte is held through the segment's own descriptor.
    auto claimed = seg.claim_slot(seg.fd_.get());
    if (!claimed) {
        return claimed.err();
    }
    seg.slot_ = claimed->slot;
    seg.owner_word_ = claimed->owner_word;
    return {};
}

result<std::unique_ptr<segment>> opener::create_named(const segment_options& options,
                                                      const std::string& path) {
    const std::string dir = platform::directory_of(path);
    auto file = platform::create_nameless(dir, options.perm);
    if (!file) {
        return file.err();
    }
    std::unique_ptr<segment> seg(new segment);
    seg->kind_ = options.kind;
    seg->writable_ = true;
    seg->path_ = path;
    seg->name_ = options.kind == segment_kind::shared ? options.path : std::string{};
    seg->unnamed_ = std::move(*file);
    seg->replaces_ = options.mode == open_mode::create;
    auto copy = platform::reopen(seg->unnamed_.fd.get(), true);
    if (!copy) {
        return copy.err();
    }
    seg->fd_ = std::move(*copy);
    if (auto ok = prepare_new(*seg, options); !ok) {
        return ok.err();
    }
    if (auto ok = take_open_lock(*seg, true); !ok) {
        return ok.err();
    }
    if (auto ok = take_slot(*seg); !ok) {
        return ok.err();
    }
    return seg;
}

result<void> opener::prepare_new(segment& seg, const segment_options& options) {
    if (auto ok = platform::require_usable_filesystem(seg.fd_.get(), seg.path_); !ok) {
        return ok;
    }
    auto id = platform::identify(seg.fd_.get(), seg.path_);
    if (!id) {
        return id.err();
    }
    seg.id_ = *id;
    return format_file(seg, options);
}

result<std::unique_ptr<segment>> opener::create_scratch(const segment_options& options) {
    auto file = platform::create_nameless(options.path, options.perm);
    if (!file) {
        return file.err();
    }
    if (!file->temporary_name.empty()) {
        ::unlink(file->temporary_name.c_str());
    }
    std::unique_ptr<segment> seg(new segment);
    seg->kind_ = segment_kind::scratch;
    seg->writable_ = true;
    seg->path_ = options.path;
    seg->fd_ = std::move(file->fd);
    if (auto ok = prepare_new(*seg, options); !ok) {
        return ok.err();
    }
    if (auto ok = take_slot(*seg); !ok) {
        return ok.err();
    }
    return seg;
}

result<std::unique_ptr<segment>> opener::open_existing(const segment_options& options,
                                                       const std::string& path, bool writable) {
    auto fd = platform::open_file(path, writable, options.kind != segment_kind::shared);
    if (!fd) {
        return fd.err();
    }
    std::unique_ptr<segment> seg(new segment);
    seg->kind_ = options.kind;
    seg->writable_ = writable;
    seg->path_ = path;
    seg->name_ = options.kind == segment_kind::shared ? options.path : std::string{};
    seg->fd_ = std::move(*fd);
    if (auto ok = platform::require_usable_filesystem(seg->fd_.get(), path); !ok) {
        return ok.err();
    }
    auto id = platform::identify(seg->fd_.get(), path);
    if (!id) {
        return id.err();
    }
    seg->id_ = *id;
    const auto got = ::pread(seg->fd_.get(), &seg->header_, sizeof seg->header_, 0);
    if (got != static_cast<ssize_t>(sizeof seg->header_)) {
        return error{errc::format, 0, "not an arena: the file is shorter than one page", path};
    }
    if (auto ok = check_header(seg->header_, writable, seg->geo_, path); !ok) {
        return ok.err();
    }
    if (options.alignment != 0 && options.alignment != seg->header_.alignment) {
        return error{errc::invalid, 0,
                     "the arena has alignment " + std::to_string(seg->header_.alignment) +
                         ", not " + std::to_string(options.alignment) +
                         "; leave alignment out for an existing arena",
                     path};
    }
    if (auto ok = join(*seg, writable); !ok) {
        return ok.err();
    }
    if (writable && options.kind == segment_kind::file && !platform::has_name(seg->fd_.get())) {
        // While this waited for the lock, another file took its place.
        auto there = platform::open_file(path, writable, true);
        if (there && !platform::is_same_file(there->get(), seg->id_)) {
            seg.reset();
            return open_existing(options, path, writable);
        }
    }
    return seg;
}

result<void> opener::join(segment& seg, bool writable) {
    auto bytes = platform::file_size(seg.fd_.get(), seg.path_);
    if (!bytes) {
        return bytes.err();
    }
    if (*bytes < seg.geo_.data_offset() + seg.geo_.chunk_bytes()) {
        return error{errc::corruption, 0,
                     "the file is shorter than its own tables (it was truncated); restore it "
                     "from a copy",
                     seg.path_};
    }
    // Readers share the lock for as long as they look; writers hold it until
    // recovery has finished.
    if (auto ok = take_open_lock(seg, writable); !ok) {
        return ok;
    }
    if (seg.is_transient() && !platform::has_name(seg.fd_.get())) {
        return error{errc::not_found, ENOENT, "its last process has just left it", seg.path_};
    }
    // Mapped once, for as much as it may become.
    std::uint64_t ceiling = 0;
    const auto at = seg.geo_.control_offset() + offsetof(control_page, capacity);
    if (::pread(seg.fd_.get(), &ceiling, sizeof ceiling, static_cast<off_t>(at)) !=
            static_cast<ssize_t>(sizeof ceiling) ||
        ceiling > max_capacity) {
        ceiling = 0;  // judged by check_control
    }
    seg.requested_capacity_ = std::max(*bytes, ceiling);
    if (auto mapped = map_new(seg, *bytes, seg.path_); !mapped) {
        return mapped;
    }
    const control_page& c = seg.control();
    const bool alive = platform::is_locked_by_other(seg.fd_.get(), lock_base + seg.file_base_,
                                                    seg.geo_.slot_count);
    const platform::instance_id now = platform::instance_of(seg.fd_.get());
    const platform::instance_id then{c.boot, c.device, c.inode, c.inode_generation, c.mount};
    seg.deserted_ = !alive;
    seg.reset_ = !alive && (!now.is_certainly(then) || c.initialized != 1);
    if (!seg.reset_) {
        if (auto ok = check_control(seg); !ok) {
            return ok;
        }
        if (c.capacity > seg.mapped_size_) {
            return error{errc::no_memory, 0,
                         "the arena's capacity of " + base::human_size(c.capacity) +
                             " exceeds the address space that could be reserved; raise the limit "
                             "(ulimit -v)",
                         seg.path_};
        }
        seg.requested_capacity_ = c.capacity;
    } else {
        // The rest of the old state is void, but a ceiling is only a number.
        const root_page* root = current_root(seg.base_, seg.header_);
        const std::uint64_t last =
            root != nullptr ? root->capacity : default_capacity(seg.fd_.get());
        const std::uint64_t least = base::align_up(seg.geo_.min_capacity(), format_page);
        const std::uint64_t most =
            seg.has_fixed_size() ? base::align_down(*bytes, format_page) : seg.mapped_size_;
        if (most < least) {
            return error{errc::corruption, 0,
                         "the file is shorter than any arena (it was truncated); restore it from "
                         "a copy",
                         seg.path_};
        }
        seg.requested_capacity_ = std::clamp(base::align_down(last, format_page), least, most);
    }
    if (!writable) {
        seg.finish_opening();
        return {};
    }
    if (seg.reset_) {
        // A sparse copy has holes where the tables go: not a byte before they
        // have their blocks.
        const int rc = seg.commit_range(0, seg.geo_.data_offset() + seg.geo_.chunk_bytes());
        if (rc != 0) {
            return platform::system_error("cannot reserve space for the arena's tables", rc,
                                          seg.path_);
        }
    }
    return take_slot(seg);
}

}  // namespace ndarena::segment
