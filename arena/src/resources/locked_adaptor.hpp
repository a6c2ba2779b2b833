// Memory that is never swapped out: whole pages of its own for every request,
// since locks of pages do not nest.
#pragma once

#include "platform/platform.hpp"
#include "resources/resource.hpp"

namespace ndarena::resources {

class locked_adaptor final : public resource {
public:
    // The error of the last refusal by the system goes to `last_errno`.
    locked_adaptor(std::shared_ptr<std::atomic<int>> last_errno, resource_ptr upstream,
                   std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)),
          last_errno_(std::move(last_errno)),
          upstream_(std::move(upstream)) {}

private:
    static bool is_too_large(std::size_t nbytes) noexcept {
        return nbytes > SIZE_MAX - platform::page_size;
    }
    static std::size_t pages(std::size_t nbytes) noexcept {
        return base::align_up(nbytes, platform::page_size);
    }
    static std::size_t aligned(std::size_t alignment) noexcept {
        return std::max<std::size_t>(alignment, platform::page_size);
    }
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        if (is_too_large(nbytes)) {
            return nullptr;
        }
        void* p = upstream_->allocate(pages(nbytes), aligned(alignment), zero);
        if (p == nullptr) {
            return nullptr;
        }
        if (const int rc = platform::lock_pages(p, pages(nbytes)); rc != 0) {
            last_errno_->store(rc, std::memory_order_relaxed);
            upstream_->deallocate(p, pages(nbytes), aligned(alignment));
            return nullptr;
        }
        return p;
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        (void)platform::unlock_pages(p, pages(nbytes));
        upstream_->deallocate(p, pages(nbytes), aligned(alignment));
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        if (!is_too_large(nbytes) && pages(nbytes) == pages(old_bytes)) {
            return p;
        }
        return resource::do_reallocate(p, old_bytes, nbytes, alignment);
    }

    std::shared_ptr<std::atomic<int>> last_errno_;
    resource_ptr upstream_;
};

}  // namespace ndarena::resources
