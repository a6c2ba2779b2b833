// Large requests here, small ones there. The size says on which side memory is.
#pragma once

#include "resources/resource.hpp"

namespace ndarena::resources {

class threshold_adaptor final : public resource {
public:
    // Requests of `min_size` bytes and more are large.
    threshold_adaptor(std::size_t min_size, resource_ptr large, resource_ptr small,
                      std::shared_ptr<counters> counts) noexcept
        : resource(std::move(counts)),
          min_size_(min_size),
          large_(std::move(large)),
          small_(std::move(small)) {}

private:
    resource& side(std::size_t nbytes) const noexcept {
        return nbytes >= min_size_ ? *large_ : *small_;
    }
    void* do_allocate(std::size_t nbytes, std::size_t alignment, bool zero) noexcept override {
        return side(nbytes).allocate(nbytes, alignment, zero);
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t alignment) noexcept override {
        side(nbytes).deallocate(p, nbytes, alignment);
    }
    void* do_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes,
                        std::size_t alignment) noexcept override {
        if (&side(old_bytes) == &side(nbytes)) {
            return side(nbytes).reallocate(p, old_bytes, nbytes, alignment);
        }
        return resource::do_reallocate(p, old_bytes, nbytes, alignment);
    }

    std::size_t min_size_;
    resource_ptr large_;
    resource_ptr small_;
};

}  // namespace ndarena::resources
