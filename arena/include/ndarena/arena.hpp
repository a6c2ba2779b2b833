/// \file
/// An arena: an allocator carved out of a file, a shared-memory segment or a
/// buffer, whose blocks are memory of the process while it runs.
///
/// \code
/// auto opened = ndarena::arena::scratch("/var/tmp");
/// if (!opened) { report(opened.err().message); return; }
/// ndarena::arena& arena = *opened;
/// void* p = arena.allocate(1 << 20);
/// arena.deallocate(p);
/// \endcode
///
/// Ownership: copies of an `arena` share one mapping per process; it is
/// unmapped with the last copy (a caller's buffer is left mapped). Blocks that
/// are still allocated then are freed, so keep a copy as long as any of their
/// memory is in use.
///
/// Threads: every member may be called from any thread at any time.
///
/// Processes: a file or a named segment may be open in many processes. One
/// that dies, at any instruction, blocks nobody; what it held is reclaimed.
/// After fork the child keeps all blocks it inherits; of scratch arenas and
/// anonymous buffers it sees a private copy.
#pragma once

#include <ndarena/error.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ndarena {

namespace heap {
class heap;
}

/// How an arena is opened; the letters are h5py's.
enum class mode : std::uint8_t {
    read,        ///< r: existing, for reading
    read_write,  ///< r+: existing, for reading and writing
    create,      ///< w: new, in place of an existing file (its holders keep the old one)
    exclusive,   ///< x or w-: new, fails if it exists
    append,      ///< a: existing, else new
};

/// What may be chosen when an arena is made. Zero means the default.
struct arena_options {
    /// Ceiling in bytes. Space is taken as it is used, so a high one costs
    /// nothing. 0: most of what the file system has free; unchanged for an
    /// existing arena, whose capacity is raised but never lowered.
    std::uint64_t capacity = 0;
    /// Alignment of every block, a power of two up to 2 MiB; below 64 it is 64
    /// all the same. 0: 64 for a new arena; that of an existing one, which any
    /// other value must match.
    std::uint64_t alignment = 0;
    /// Permission bits of a new file or segment.
    unsigned perm = 0600;
};

/// Counters of one moment. All sizes in bytes.
struct arena_stats {
    std::uint64_t capacity = 0;
    std::uint64_t committed = 0;       ///< set aside so far; includes pages given back since
    std::uint64_t allocated = 0;       ///< in allocated blocks
    std::uint64_t peak_allocated = 0;  ///< highest `allocated` so far
    std::uint64_t largest_free = 0;    ///< largest request the capacity allows
    std::uint64_t n_blocks = 0;        ///< allocated blocks
    std::uint64_t n_free_blocks = 0;
    std::uint64_t resident = 0;    ///< in memory at this moment
    std::uint64_t oom_count = 0;   ///< requests that found no room
    std::uint64_t processes = 0;   ///< that have it open for writing
    std::uint64_t in_transit = 0;  ///< references on their way between processes
};

class arena {
public:
    /// Opens or creates a file. Errors: not_found, exists, permission, format,
    /// corruption, lock_timeout, no_memory, unsupported (network file systems).
    static result<arena> open(const std::string& path, mode how, const arena_options& options = {});

    /// Opens or creates a POSIX shared-memory segment by name, without '/'.
    static result<arena> shared(const std::string& name, mode how,
                                const arena_options& options = {});

    /// A temporary file without a name in `directory`, gone with its last user.
    static result<arena> scratch(const std::string& directory, const arena_options& options = {});

    /// An arena inside memory of the caller's, which must stay mapped as long
    /// as any copy of the arena lives. All-zero memory is formatted, an arena
    /// found in it is attached, anything else is errc::format unless
    /// `overwrite`.
    static result<arena> over(void* buffer, std::size_t size, bool overwrite = false,
                              const arena_options& options = {});

    /// At least `nbytes` bytes (0 counts as 1) at a multiple of `alignment`
    /// (0: the arena's own; a power of two up to 2 MiB). Null when refused:
    /// `refusal()` says why. Never throws.
    void* allocate(std::size_t nbytes, std::size_t alignment = 0) noexcept;

    /// The same, all bytes zero. Costs nothing on pages never used before.
    void* allocate_zeroed(std::size_t nbytes, std::size_t alignment = 0) noexcept;

    /// Resizes in place where the neighbourhood allows, else moves. Null when
    /// refused; the old block is then untouched.
    void* reallocate(void* p, std::size_t nbytes) noexcept;

    /// Frees a block. False, and nothing happens, if `p` is not the start of a
    /// live block that this process allocated here or inherited by fork.
    bool deallocate(void* p) noexcept;

    /// Whether the address lies in the arena's mapping, allocated or not.
    bool owns(const void* p) const noexcept;

    /// Bytes asked for when the block was allocated; 0 if it is none.
    std::size_t size_of(const void* p) const noexcept;

    /// Why this process's last refused request was refused, in words.
    std::string refusal() const;

    arena_stats stats() const noexcept;

    /// Examines all metadata. Empty means sound; else one sentence for every
    /// broken invariant.
    std::vector<std::string> check() const;

    /// Gives the pages of free blocks back to the file system or the system,
    /// but for free blocks with less than 64 KiB to give. Returns bytes.
    std::uint64_t trim() noexcept;

    /// Raises the capacity, for every process that has reserved the address
    /// space (1 TiB or the capacity at opening). A lower or equal one changes
    /// nothing. Errors: invalid (buffers), no_memory (not so far), read_only.
    result<void> grow(std::uint64_t capacity);

    /// Frees what dead processes held. Returns the number of blocks. Happens
    /// by itself on opening, and before a request is refused for want of
    /// capacity or disk space.
    std::uint64_t reclaim() noexcept;

    /// Removes the name; the arena lives on until its last user is gone. An
    /// error for scratch arenas and buffers, which have none.
    result<void> unlink();

    /// The implementation, for the layers above; not for users.
    const std::shared_ptr<heap::heap>& implementation() const noexcept { return heap_; }

private:
    explicit arena(std::shared_ptr<heap::heap> h) noexcept : heap_(std::move(h)) {}
    std::shared_ptr<heap::heap> heap_;
};

}  // namespace ndarena
