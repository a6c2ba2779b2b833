// Everything aligned to N at least, whatever the upstream does by itself.
#pragma once

#include "resources/resource.hpp"

namespace ndarena::resources {

class aligned_adaptor final : public resource {
public:
    // `alignment`: a power of two.
    aligned_adaptor(std::size_t alignment, resource_ptr upstream,
                    std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)), alignment_(alignment), upstream_(std::move(upstream)) {}

private:
    std::size_t larger(std::size_t alignment) const noexcept {
        return std::max(alignment, alignment_);
    }
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        return upstream_->allocate(nbytes, larger(alignment), zero);
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        upstream_->deallocate(p, nbytes, larger(alignment));
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        return upstream_->reallocate(p, old_bytes, nbytes, larger(alignment));
    }

    std::size_t alignment_;
    resource_ptr upstream_;
};

}  // namespace ndarena::resources
