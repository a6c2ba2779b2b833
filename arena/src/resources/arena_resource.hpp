// An arena; refuses everything new once it is closed.
#pragma once

#include "heap/heap.hpp"
#include "resources/resource.hpp"

namespace ndarena::resources {

class arena_resource final : public resource {
public:
    // `keep` holds whatever the heap's users hold; `closed` is that opening's flag.
    arena_resource(heap::heap& of, std::shared_ptr<const void> keep,
                   std::shared_ptr<const std::atomic<bool>> closed,
                   std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)),
          heap_(of),
          keep_(std::move(keep)),
          closed_(std::move(closed)) {}

private:
    bool is_closed() const noexcept { return closed_->load(std::memory_order_relaxed); }
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        // The arena's own alignment is no less than that of every resource.
        return is_closed()
                   ? nullptr
                   : heap_.allocate(nbytes, alignment <= least_alignment ? 0 : alignment, zero);
    }
    void do_deallocate(void* p, std::size_t /*nbytes*/,
                       std::size_t /*alignment*/) noexcept override {
        (void)heap_.deallocate(p);
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t /*alignment*/) noexcept override {
        return is_closed() && nbytes > old_bytes ? nullptr : heap_.reallocate(p, nbytes);
    }

    heap::heap& heap_;
    std::shared_ptr<const void> keep_;
    std::shared_ptr<const std::atomic<bool>> closed_;
};

}  // namespace ndarena::resources
