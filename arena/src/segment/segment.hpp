// Layer 2: a segment is the bytes of one arena (a file, a shared-memory
// object, or a caller's buffer), mapped once per process.
//
// This layer creates, opens and validates segments, claims a process slot in
// them, and moves disk space in and out. It knows the layout but not the
// meaning of the volatile state: recovery and allocation are the heap's.
#pragma once

#include "segment/format.hpp"
#include "segment/slot_lock.hpp"

#include "platform/platform.hpp"

#include <memory>
#include <string>
#include <vector>

namespace ndarena::segment {

enum class segment_kind : std::uint8_t { file, shared, scratch, buffer };
enum class open_mode : std::uint8_t {
    read,        // r   existing, for reading
    read_write,  // r+  existing
    create,      // w   new, in place of an existing one
    exclusive,   // x   new, must not exist
    append,      // a   existing, else new
};

struct segment_options {
    segment_kind kind = segment_kind::scratch;
    open_mode mode = open_mode::append;
    std::string path;             // file: its path; shared: its name; scratch: the directory
    std::uint64_t capacity = 0;   // 0: default for new ones, unchanged for existing ones
    std::uint64_t alignment = 0;  // 0: 64 for new ones, any for existing ones
    unsigned perm = 0600;
    void* buffer = nullptr;  // kind buffer only
    std::uint64_t buffer_size = 0;
    bool transient = false;      // kind shared, new: the name goes with its last process
    bool format_buffer = false;  // format whatever the buffer holds
    // Anonymous shared pages of the buffer are ordinary memory, whose pages may
    // be given back (false: a device may know their addresses).
    bool plain_memory = true;
    std::shared_ptr<void> keep_alive;  // what keeps the buffer there
};

// How the pages of a segment come and go.
enum class backing : std::uint8_t {
    file,            // through a descriptor: fallocate, hole punching
    shared_memory,   // shared pages without a descriptor: MADV_POPULATE_WRITE, MADV_REMOVE
    private_memory,  // anonymous memory of this process: nothing to commit, MADV_DONTNEED
    opaque,          // anything else (device memory, private file mappings): leave alone
};

// What a root page says of the arena.
struct root_contents {
    std::uint64_t directory = 0;
    std::uint64_t watermark = 0;
    std::uint64_t capacity = 0;
    std::uint64_t epoch = 0;
};

class segment final : public slot_authority {
public:
    // Opens or creates. Until `finish_opening` the segment's open lock is held,
    // so that recovery is alone; `must_reset` and `was_deserted` tell it what
    // to do.
    static result<std::unique_ptr<segment>> open(const segment_options& options);
    ~segment() override;
    segment(const segment&) = delete;
    segment& operator=(const segment&) = delete;

    // A new segment gets its name only now: whole, and while the open lock is
    // held. errc::exists if another was faster.
    result<void> publish();
    void finish_opening() noexcept;
    // True: no live process was in it, so volatile state is ours to recover.
    bool was_deserted() const noexcept { return deserted_; }
    // True: volatile state is not to be trusted or absent; format it anew.
    bool must_reset() const noexcept { return reset_; }
    // True if the data area of a segment being reset is known to be zero.
    bool is_pristine() const noexcept { return pristine_; }

    segment_kind kind() const noexcept { return kind_; }
    backing pages() const noexcept { return backing_; }
    bool writable() const noexcept { return writable_; }
    // Its size is its owner's: no growth, no truncation.
    bool has_fixed_size() const noexcept {
        return kind_ == segment_kind::buffer ||
               (header_.features_compatible & feature::fixed_size) != 0;
    }
    bool is_solo() const noexcept { return solo_; }  // one process only, no slots
    const std::string& path() const noexcept { return path_; }
    const std::string& name() const noexcept { return name_; }
    std::byte* base() const noexcept { return base_; }
    std::uint64_t mapped_size() const noexcept { return mapped_size_; }
    const geometry& geo() const noexcept { return geo_; }
    const file_header& header() const noexcept { return header_; }
    const platform::file_id& id() const noexcept { return id_; }
    int fd() const noexcept { return fd_.get(); }
    // A descriptor to map through. A mapping keeps its open file description, and
    // the bytes locked through it, in all fork children that inherit it: so
    // nothing is ever locked through this one.
    result<platform::unique_fd> mapping_source() const noexcept {
        return platform::reopen(fd_.get(), writable_);
    }
    std::uint64_t file_offset(std::uint64_t offset) const noexcept { return file_base_ + offset; }
    control_page& control() const noexcept {
        return *reinterpret_cast<control_page*>(base_ + geo_.control_offset());
    }
    slot_entry& slot_at(std::uint32_t i) const noexcept {
        return reinterpret_cast<slot_entry*>(base_ + geo_.slots_offset())[i];
    }

    std::uint32_t slot() const noexcept { return slot_; }
    std::uint32_t owner_word() const noexcept { return owner_word_; }
    bool is_alive(std::uint32_t slot) const noexcept override;
    std::uint32_t count_live_slots() const noexcept;
    bool other_slots_alive() const noexcept;
    // The descriptor still is the arena's file (daemons close what they find).
    bool descriptor_intact() const noexcept;

    // A slot claimed ahead for a fork child, held by its own descriptor.
    struct claimed_slot {
        platform::unique_fd fd;
        std::uint32_t slot = nil;
        std::uint32_t owner_word = 0;
        bool was_used = false;  // its row may hold bits of a dead process
    };
    // Claims through `fd`, whose open file description then holds the slot; `fd`
    // of the result is left for the caller to fill.
    result<claimed_slot> claim_slot(int fd) noexcept;
    platform::unique_fd spare_descriptor() noexcept;  // of the same file, not yet used
    void prepare_spare() noexcept;
    void adopt_slot(claimed_slot claimed) noexcept;  // in the child: drop the parent's
    // Takes the byte of a slot whose process is dead, so that nobody claims it
    // while its row is reaped; false if it is alive.
    bool hold_dead_slot(std::uint32_t slot) noexcept;
    void let_dead_slot_go(std::uint32_t slot) noexcept;
    void close_descriptor() noexcept;  // in a child that has no slot
    void leave_slot() noexcept;        // the row must be empty

    // Commits [from, to) at the end of the committed part / gives it back
    // after a failure. Returns 0 or errno; on failure nothing was kept.
    int extend(std::uint64_t from, std::uint64_t to) noexcept;
    void undo_extend(std::uint64_t watermark) noexcept;
    // Commits a range below the watermark that may have holes.
    int commit_range(std::uint64_t offset, std::uint64_t size) noexcept;
    // Gives pages back; the range reads as zeros. errno where impossible.
    int discard_range(std::uint64_t offset, std::uint64_t size) noexcept;
    bool can_discard() const noexcept { return backing_ != backing::opaque; }

    // Writes the root page that is not the current one.
    void write_root(const root_contents& contents) noexcept;
    // Some reader without a slot may still see names older than the epoch.
    bool has_readers(std::uint64_t epoch) const noexcept;
    // One past the highest epoch that a reader sees, 0 if there is no reader.
    std::uint64_t newest_reader() const noexcept;
    // Keeps blocks that the names of the epoch lead to from being reused, until
    // `unpin`. Errors: of the lock.
    result<void> pin(std::uint64_t epoch) noexcept;
    void unpin(std::uint64_t epoch) noexcept;
    // Bytes that the volatile state may lie in.
    result<std::uint64_t> file_bytes() const;

    result<void> unlink() noexcept;
    // A shared segment whose name goes with its last process.
    bool is_transient() const noexcept;
    // This process will not attach to it again: if nobody else stays and no
    // message is on its way, a transient segment loses its name.
    void retire() noexcept;
    std::uint64_t initial_capacity() const noexcept { return requested_capacity_; }
    // In a fork child that has copied it: pages now belong to this process.
    void become_private_memory() noexcept { backing_ = backing::private_memory; }

private:
    segment() = default;
    friend class opener;

    segment_kind kind_ = segment_kind::file;
    backing backing_ = backing::file;
    bool writable_ = false;
    bool solo_ = false;
    bool deserted_ = false;
    bool reset_ = false;
    bool pristine_ = false;
    bool opening_ = false;
    std::string path_;
    std::string name_;
    platform::unique_fd fd_;
    platform::unique_fd spare_;
    platform::nameless_file unnamed_;  // a new segment before `publish`
    bool replaces_ = false;
    platform::file_id id_;
    platform::mapped_region owned_;  // empty for buffers
    std::byte* base_ = nullptr;
    std::uint64_t mapped_size_ = 0;
    std::uint64_t file_base_ = 0;  // where in the file the segment starts
    std::uint64_t requested_capacity_ = 0;
    geometry geo_;
    file_header header_{};  // the validated copy
    std::uint32_t slot_ = 0;
    std::uint32_t owner_word_ = 0;
};

// The valid root page with the higher sequence; null if there is none.
const root_page* current_root(const std::byte* base, const file_header& header) noexcept;

// Removes transient segments of this host that nobody has open, and about
// which no message may still be read: those that all processes died in.
// Returns their names. `grace_ms` is how long a message may be read after its
// sender was found dead.
std::vector<std::string> sweep_transient(std::uint64_t grace_ms);
// The same for those that this process has left, at its end: children that it
// has stopped since had them open. Waits for nobody.
void sweep_left_behind(std::uint64_t grace_ms) noexcept;

// Sanity of the volatile state's numbers that everything else relies on.
result<void> check_control(const segment& seg);

}  // namespace ndarena::segment
