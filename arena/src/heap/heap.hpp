// Layer 5: the arena as one process uses it. Puts together the segment (bytes
// and slots), the undo log and TLSF under the segment's lock, and adds what
// needs a process: the pointer map, ownership rows, committing and purging
// pages, recovery, fork.
//
// Two locks. `mutex_` excludes the threads of this process and guards all
// process-private state; inside it, for as short as possible, the slot lock
// `heap_lock` excludes other processes. No system call that can block runs
// under the slot lock; committing and punching run under neither.
#pragma once

#include "heap/pointer_map.hpp"

#include <memory>
#include <string>
#include <vector>

namespace ndarena::heap {

using segment::open_mode;
using segment::segment_kind;
using segment::segment_options;

struct statistics {
    std::uint64_t capacity = 0;
    std::uint64_t committed = 0;  // bytes below the watermark
    std::uint64_t allocated = 0;  // bytes of allocated blocks
    std::uint64_t peak_allocated = 0;
    std::uint64_t largest_free = 0;  // largest request sure to fit, growth included
    std::uint64_t n_blocks = 0;      // allocated blocks
    std::uint64_t n_free_blocks = 0;
    std::uint64_t resident = 0;   // bytes of the mapping in memory
    std::uint64_t oom_count = 0;  // requests refused for want of room
    std::uint64_t processes = 0;  // that have it open for writing
    std::uint64_t in_transit = 0;
    std::uint64_t metadata = 0;   // bytes of the arena's own tables
    std::uint64_t warm_free = 0;  // freed bytes kept for reuse
};

// A block as every process that has the segment open can name it.
struct block_id {
    std::uint64_t offset = 0;  // of the payload
    std::uint64_t serial = 0;  // no two blocks of a session have the same
    std::uint32_t record = 0;
};

// A message's own hold on a block.
struct token {
    std::uint32_t index = segment::nil;
    std::uint64_t serial = 0;
};

enum class view_state : std::uint8_t {
    pristine = 0,
    warm = 1,
    punched = 2,
    allocated = 3,
    metadata = 4,
    moving = 5,
};
struct block_view {
    std::uint64_t offset;
    std::uint64_t size;
    view_state state;
};

class heap : public std::enable_shared_from_this<heap> {
public:
    // Opens a segment, or returns the heap this process already has for it.
    static result<std::shared_ptr<heap>> open(const segment_options& options);
    // The heap of this process whose mapping contains the address.
    static std::shared_ptr<heap> find(const void* address) noexcept;
    // The writable one of a file or shared segment, by `session()`.
    static std::shared_ptr<heap> find_session(std::uint64_t session) noexcept;

    // `keep_alive` is let go of when nothing touches the memory any more.
    heap(std::unique_ptr<segment::segment> seg, std::shared_ptr<void> keep_alive);
    ~heap();
    heap(const heap&) = delete;
    heap& operator=(const heap&) = delete;

    // -- allocation; thread-safe, never throws, calls nothing foreign --
    // At least `nbytes` (0 counts as 1) at a multiple of `alignment` (0: the
    // arena's); null if refused, see `refusal`.
    void* allocate(std::uint64_t nbytes, std::uint64_t alignment, bool zero) noexcept;
    // False if the address is not the start of a live block of this process.
    bool deallocate(void* address) noexcept;
    // Null: refused, the old block is untouched. Content is kept up to the
    // smaller size.
    void* reallocate(void* address, std::uint64_t nbytes) noexcept;
    // Size that was asked for, 0 if not a live block of this process.
    std::uint64_t size_of(const void* address) noexcept;
    // The address lies in the mapping (of this heap or of its fork successor).
    bool contains(const void* address) const noexcept;
    // Why this process's last request was refused, empty if none was.
    std::string refusal() noexcept;

    // -- references; a block lives as long as this process has one, a row or a
    // token of any process holds it --
    // The block that starts at the address; false if this process has none.
    bool identify(const void* address, block_id& id, std::uint64_t& nbytes) noexcept;
    // One reference more, given back by `deallocate`. False as above.
    bool retain(const void* address) noexcept;
    // A token for a message about the block, good for `readers` attachments.
    // Errors: unsupported (private arenas), no_memory (too many on their way).
    bool can_send() const noexcept;
    result<token> send(const void* address, std::uint32_t readers);
    // A reference to the block of a message, in the place of its token's if
    // that is still there. Errors: stale.
    result<void*> attach(const block_id& id, const token& ticket, std::uint64_t& nbytes);

    // -- space --
    std::uint64_t trim() noexcept;  // gives all free pages back; bytes
    result<void> grow(std::uint64_t capacity);
    // Freed pages go back after `delay_ms` (-1: never by age, 0: at once), and
    // at once beyond `budget` bytes.
    void set_purge(std::int64_t delay_ms, std::uint64_t budget) noexcept;
    // For so long after its sender was found dead a message may be read.
    static constexpr std::uint64_t default_grace_ms = 60000;
    // Reaps dead processes, and tokens whose sender has been known to be gone
    // for `grace_ms`. Returns blocks freed and tokens dropped.
    std::uint64_t reclaim(std::uint64_t grace_ms = default_grace_ms) noexcept;

    // -- looking --
    statistics stats() noexcept;
    std::vector<std::string> check();
    std::vector<block_view> blocks();
    std::uint64_t live_blocks() noexcept;  // of this process
    std::uint64_t allocated_bytes() noexcept;
    std::uint64_t capacity() noexcept;
    // A new random number whenever the arena's state begins anew: what was there
    // before (another boot, another file of the same name) has another.
    std::uint64_t session() const noexcept { return seg_->control().session; }
    std::uint64_t alignment() const noexcept { return seg_->header().alignment; }
    const segment::segment& seg() const noexcept { return *seg_; }
    std::byte* base() const noexcept { return seg_->base(); }
    result<void> unlink() { return seg_->unlink(); }
    std::uint64_t deepest_undo() noexcept;

    // -- fork, called by the atfork handlers of the registry --
    void before_fork() noexcept;
    void after_fork_in_parent() noexcept;
    void after_fork_in_child() noexcept;

private:
    struct request {
        std::uint64_t nbytes;           // asked for
        std::uint64_t size;             // of the block
        std::uint64_t alignment;        // of the block
        std::uint32_t asked_alignment;  // 0: the arena's
        bool may_colour;                // the payload may start a few KiB into the block
    };
    struct found {
        bool ok = false;
        bool need_records = false;
        tlsf::placement place;
        std::uint64_t offset = 0;  // of the payload
        std::uint64_t serial = 0;
    };
    enum class refusal_cause : std::uint8_t {
        none,
        capacity,
        disk,
        memory,
        lock,
        poisoned,
        forked,
        read_only,
        size,
    };

    // lifecycle
    result<void> start();
    void format_volatile() noexcept;
    result<void> recover();
    void write_witness() noexcept;
    void recover_operation() noexcept;

    // the slot lock; both return with the undo log empty
    bool lock_shared(unsigned timeout_ms = segment::slot_lock::default_timeout_ms) noexcept;
    void unlock_shared() noexcept;
    bool settle() noexcept;  // commits, or rolls back and poisons
    void poison(const char* why) noexcept;
    bool usable() noexcept;

    // allocation
    bool room_for_record() noexcept;
    found try_allocate(const request& wanted, std::uint64_t now, bool thorough) noexcept;
    int complete_holes(const found& f) noexcept;  // 0 or errno
    bool clear_holes(std::uint32_t record) noexcept;
    void abandon(const found& f) noexcept;
    std::uint64_t find_place(const request& wanted, found& f) noexcept;
    void release_record(std::uint32_t record, std::uint64_t payload_offset,
                        std::uint64_t now) noexcept;
    void drain_deferred(std::uint64_t now) noexcept;
    void drop_private_pages(const map_entry& entry) noexcept;
    void note_allocation(found& f, const request& wanted) noexcept;
    void enter(const found& f, const request& wanted) noexcept;
    void* reallocate_elsewhere(void* address, std::uint64_t old_bytes, std::uint64_t nbytes,
                               std::uint64_t alignment) noexcept;
    enum class resize_outcome : std::uint8_t { done, move, refused };
    resize_outcome resize_in_place(map_entry* wanted, std::uint64_t nbytes) noexcept;
    void* refuse(refusal_cause cause, std::uint64_t nbytes, int os_errno = 0) noexcept;

    // tables
    bool add_records() noexcept;
    bool add_table(std::uint64_t bytes, bool is_chunk) noexcept;

    // space
    refusal_cause make_room(const request& wanted, int& os_errno) noexcept;
    bool extend_to_fit(std::uint64_t size, std::uint64_t alignment, refusal_cause& cause,
                       int& os_errno) noexcept;
    std::uint64_t extension_step(std::uint64_t watermark) const noexcept;
    bool purge_due(std::uint64_t now) noexcept;
    std::uint64_t purge(std::uint64_t freed_before, std::uint64_t down_to,
                        std::uint64_t at_most) noexcept;
    std::uint64_t purge_one(std::uint64_t freed_before, std::uint64_t down_to) noexcept;
    void purge_if_due(bool due) noexcept;
    bool await_purge(std::uint32_t done_before, std::uint64_t& deadline) noexcept;
    int discard(std::uint64_t offset, std::uint64_t dirty) noexcept;

    // owners
    void hold(std::uint32_t record, tlsf::block_record& r) noexcept;
    bool unhold(std::uint32_t record, tlsf::block_record& r, std::uint32_t slot) noexcept;
    std::uint64_t reap_row(std::uint32_t slot) noexcept;
    bool row_is_empty(std::uint32_t slot) noexcept;
    std::uint64_t reap_dead() noexcept;
    std::uint64_t reap_now_and_then() noexcept;
    void take_over_locks_of(std::uint32_t slot) noexcept;
    std::uint64_t reap_dead_slots() noexcept NDARENA_REQUIRES(reaping_);

    // tokens
    segment::transit_token& token_at(std::uint32_t index) const noexcept;
    std::uint32_t tokens_in_use() const noexcept;
    token issue_token(std::uint32_t record, std::uint32_t readers) noexcept;
    void retire_token(std::uint32_t index) noexcept;
    bool redeem(const block_id& id, const token& ticket) noexcept;
    void drop_hold(std::uint32_t record, std::uint64_t now) noexcept;
    std::uint64_t expire_tokens(std::uint64_t grace_ms) noexcept;
    void count_tokens(std::vector<std::uint32_t>& holders, std::vector<std::string>& findings);

    // fork
    void claim_for_child() noexcept;
    void privatise_in_child() noexcept;
    void share_page(std::uint64_t offset, std::uint64_t size) noexcept;
    heap* successor() noexcept;
    heap* next() const noexcept { return next_.load(std::memory_order_acquire); }

    void note_refused() noexcept;
    bool state_is_void() const noexcept;
    void check_rows(std::vector<std::string>& findings);
    bool read_steadily(void (*read)(heap&, void*), void* argument);

    std::shared_ptr<void> keep_alive_;  // a buffer's owner; destroyed after all else
    std::unique_ptr<segment::segment> seg_;
    platform::mapped_region cache_;  // chunk offsets, 8 bytes each
    tlsf::block_table table_;
    tlsf::allocator tlsf_;
    segment::slot_lock lock_;
    segment::slot_lock commit_lock_;
    platform::mutex mutex_;
    platform::mutex reaping_;  // one thread reaps; taken before mutex_
    platform::mutex tables_;   // one thread adds tables; taken before mutex_

    pointer_map map_;
    std::vector<map_entry> deferred_;  // frees that found the lock taken
    std::uint32_t next_colour_ = 0;
    std::int64_t purge_delay_ms_ = 2000;
    std::uint64_t purge_budget_ = 0;
    bool memory_backed_ = false;
    std::atomic<bool> can_purge_{true};
    std::atomic<std::uint64_t> last_reap_{0};
    // Blocks that this process has begun, and ended, to give back: meanwhile they
    // are on no list, though as good as free. Counted under mutex_.
    std::atomic<std::uint32_t> purges_begun_{0};
    std::atomic<std::uint32_t> purges_done_{0};
    std::atomic<bool> poisoned_{false};
    std::atomic<const char*> poison_cause_{""};  // the latest; a string literal

    struct refused_request {
        std::atomic<refusal_cause> cause{refusal_cause::none};
        std::atomic<std::uint64_t> nbytes{0};
        std::atomic<int> os_errno{0};
        void store_cause(refusal_cause why, std::uint64_t asked, int err) noexcept {
            nbytes.store(asked, std::memory_order_relaxed);
            os_errno.store(err, std::memory_order_relaxed);
            cause.store(why, std::memory_order_relaxed);
        }
    } refused_;

    // fork
    bool fork_live_ = false;  // the handlers before the fork did their part
    segment::segment::claimed_slot child_slot_;
    std::vector<platform::byte_range> fork_ranges_;
    int fork_pipe_[2] = {-1, -1};
    bool inherited_ = false;  // fork child of a private arena: blocks are kept, none are made
    std::shared_ptr<heap> successor_;  // set once, read through next_
    std::atomic<heap*> next_{nullptr};
    friend class registry;
};

}  // namespace ndarena::heap
