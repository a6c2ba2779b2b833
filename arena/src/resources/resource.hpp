// Whoever can hand out memory, and what it has handed out.
//
// The interface of std::pmr::memory_resource with three differences: nothing
// throws (null is a refusal), memory can be asked for as zeros, and it can change
// its size in place. Sizes and alignments are given back as they were asked for:
// a resource need not remember them. Any thread may call, without the GIL, with a
// Python exception pending, while the interpreter exits.
#pragma once

#include "base/base.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

namespace ndarena::resources {

// Alignment that every resource has without being asked: malloc's.
constexpr std::size_t least_alignment = 16;

// Counts of one resource, over all chains that it is part of. Bytes are those
// asked for. Changes of size are no allocations of their own.
struct counters {
    std::atomic<std::uint64_t> n_allocations{0};
    std::atomic<std::uint64_t> n_deallocations{0};
    std::atomic<std::uint64_t> allocated{0};
    std::atomic<std::uint64_t> peak_allocated{0};
    std::atomic<std::uint64_t> n_failed{0};

    void add_bytes(std::uint64_t nbytes) noexcept {
        const std::uint64_t now = allocated.fetch_add(nbytes, std::memory_order_relaxed) + nbytes;
        std::uint64_t peak = peak_allocated.load(std::memory_order_relaxed);
        while (now > peak &&
               !peak_allocated.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
        }
    }
    void drop_bytes(std::uint64_t nbytes) noexcept {
        allocated.fetch_sub(nbytes, std::memory_order_relaxed);
    }
};

class resource {
public:
    // `counts` may be null.
    explicit resource(std::shared_ptr<counters> counts = nullptr) noexcept
        : counts_(std::move(counts)) {}
    virtual ~resource() = default;
    resource(const resource&) = delete;
    resource& operator=(const resource&) = delete;

    // At least `nbytes` (not 0), aligned to a power of two; null if refused.
    void* allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept {
        void* p = do_allocate(nbytes, alignment, zero);
        if (counts_ == nullptr) {
            return p;
        }
        if (p == nullptr) {
            counts_->n_failed.fetch_add(1, std::memory_order_relaxed);
            return nullptr;
        }
        counts_->n_allocations.fetch_add(1, std::memory_order_relaxed);
        counts_->add_bytes(nbytes);
        return p;
    }
    void deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept {
        if (counts_ != nullptr) {  // first: somebody else may be given it at once
            counts_->n_deallocations.fetch_add(1, std::memory_order_relaxed);
            counts_->drop_bytes(nbytes);
        }
        do_deallocate(p, nbytes, alignment);
    }
    // The contents up to the smaller size stay. Null: refused, and `p` is as it was.
    void* reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                     std::size_t alignment) noexcept {
        void* q = do_reallocate(p, old_bytes, nbytes, alignment);
        if (counts_ == nullptr) {
            return q;
        }
        if (q == nullptr) {
            counts_->n_failed.fetch_add(1, std::memory_order_relaxed);
        } else if (nbytes >= old_bytes) {
            counts_->add_bytes(nbytes - old_bytes);
        } else {
            counts_->drop_bytes(old_bytes - nbytes);
        }
        return q;
    }

protected:
    virtual void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept = 0;
    virtual void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept = 0;
    virtual void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                                std::size_t alignment) noexcept {
        void* q = do_allocate(nbytes, alignment, false);
        if (q != nullptr) {
            std::memcpy(q, p, std::min(old_bytes, nbytes));
            do_deallocate(p, old_bytes, alignment);
        }
        return q;
    }

private:
    std::shared_ptr<counters> counts_;
};

using resource_ptr = std::shared_ptr<resource>;

}  // namespace ndarena::resources
