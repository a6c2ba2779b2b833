// At most so many bytes at once; what would be more is refused.
#pragma once

#include "resources/resource.hpp"

namespace ndarena::resources {

// Shared by all chains of one limit.
struct limit {
    explicit limit(std::uint64_t bytes) noexcept : max_bytes(bytes) {}

    bool take(std::uint64_t nbytes) noexcept {
        std::uint64_t now = used.load(std::memory_order_relaxed);
        do {
            if (nbytes > max_bytes - now) {  // `used` is never above it
                return false;
            }
        } while (!used.compare_exchange_weak(now, now + nbytes, std::memory_order_relaxed));
        return true;
    }
    void give_back(std::uint64_t nbytes) noexcept {
        used.fetch_sub(nbytes, std::memory_order_relaxed);
    }

    const std::uint64_t max_bytes;
    std::atomic<std::uint64_t> used{0};
};

class limiting_adaptor final : public resource {
public:
    limiting_adaptor(std::shared_ptr<limit> within, resource_ptr upstream,
                     std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)), limit_(std::move(within)), upstream_(std::move(upstream)) {}

private:
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        if (!limit_->take(nbytes)) {
            return nullptr;
        }
        void* p = upstream_->allocate(nbytes, alignment, zero);
        if (p == nullptr) {
            limit_->give_back(nbytes);
        }
        return p;
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        upstream_->deallocate(p, nbytes, alignment);
        limit_->give_back(nbytes);
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        const std::size_t more = nbytes > old_bytes ? nbytes - old_bytes : 0;
        if (!limit_->take(more)) {
            return nullptr;
        }
        void* q = upstream_->reallocate(p, old_bytes, nbytes, alignment);
        if (q == nullptr) {
            limit_->give_back(more);
        } else if (nbytes < old_bytes) {
            limit_->give_back(old_bytes - nbytes);
        }
        return q;
    }

    std::shared_ptr<limit> limit_;
    resource_ptr upstream_;
};

}  // namespace ndarena::resources
