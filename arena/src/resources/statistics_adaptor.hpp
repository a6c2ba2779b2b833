// Passes everything on; what it is for is its counters.
#pragma once

#include "resources/resource.hpp"

namespace ndarena::resources {

class statistics_adaptor final : public resource {
public:
    statistics_adaptor(resource_ptr upstream, std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)), upstream_(std::move(upstream)) {}

private:
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        return upstream_->allocate(nbytes, alignment, zero);
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        upstream_->deallocate(p, nbytes, alignment);
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        return upstream_->reallocate(p, old_bytes, nbytes, alignment);
    }

    resource_ptr upstream_;
};

}  // namespace ndarena::resources
