// Allocators of others: what is not usable is given back, and state goes with the
// last resource over it.
#include "resources/foreign_functions.hpp"

#include <set>

namespace ndarena::resources {
namespace {

// Addresses with 8 too many, while `crooked`.
bool crooked = false;
std::set<void*>& given() {
    static std::set<void*> all;
    return all;
}
void* give(std::size_t nbytes) {
    void* p = static_cast<std::byte*>(std::malloc(nbytes + 8)) + (crooked ? 8 : 0);
    given().insert(p);
    return p;
}
void take_back(void* p) {
    EXPECT_EQ(given().erase(p), 1U);
    std::free(static_cast<std::byte*>(p) - (crooked ? 8 : 0));
}
void* give_zeros(std::size_t count, std::size_t size) {
    return std::memset(give(count * size), 0, count * size);
}
void* give_aligned(std::size_t /*alignment*/, std::size_t nbytes) { return give(nbytes); }

TEST(FunctionResource, MisalignedMemoryIsGivenBackAndRefused) {
    functions plain;
    plain.malloc = &give;
    plain.free = &take_back;
    functions zeros = plain;
    zeros.calloc = &give_zeros;
    functions aligned = plain;
    aligned.aligned_alloc = &give_aligned;
    for (const functions& f : {plain, zeros, aligned}) {
        auto counts = std::make_shared<counters>();
        function_resource resource(f, counts);
        crooked = true;
        EXPECT_EQ(resource.allocate(100, 16, false), nullptr);
        EXPECT_EQ(resource.allocate(100, 16, true), nullptr);
        EXPECT_EQ(resource.allocate(100, 64, false), nullptr);
        EXPECT_EQ(counts->n_failed, 3U);
        EXPECT_TRUE(given().empty());
        crooked = false;
        void* p = resource.allocate(100, 16, true);
        ASSERT_NE(p, nullptr);
        resource.deallocate(p, 100, 16);
        EXPECT_TRUE(given().empty());
    }
}

struct state {
    int destroyed = 0;
    int n_live = 0;
};

foreign_functions over(state& s) {
    foreign_functions f;
    f.context = &s;
    f.allocate = [](void* c, std::size_t nbytes, std::size_t /*alignment*/, int /*zero*/) {
        ++static_cast<state*>(c)->n_live;
        return give(nbytes);
    };
    f.deallocate = [](void* c, void* p, std::size_t /*nbytes*/, std::size_t /*alignment*/) {
        --static_cast<state*>(c)->n_live;
        take_back(p);
    };
    f.destroy = [](void* c) { ++static_cast<state*>(c)->destroyed; };
    return f;
}

TEST(ForeignResource, MisalignedMemoryIsGivenBackAndRefused) {
    state s;
    auto counts = std::make_shared<counters>();
    foreign_resource resource(std::make_shared<foreign_allocator>(over(s)), counts);
    void* p = resource.allocate(50, 16, false);
    ASSERT_NE(p, nullptr);
    crooked = true;
    EXPECT_EQ(resource.allocate(100, 16, false), nullptr);
    EXPECT_EQ(resource.reallocate(p, 50, 100, 16), nullptr);
    EXPECT_EQ(s.n_live, 1);
    crooked = false;
    resource.deallocate(p, 50, 16);
    EXPECT_EQ(counts->n_failed, 2U);
    EXPECT_EQ(s.n_live, 0);
    EXPECT_TRUE(given().empty());
}

TEST(ForeignResource, StateIsDestroyedOnceWithTheLastResourceOverIt) {
    state s;
    {
        auto allocator = std::make_shared<foreign_allocator>(over(s));
        auto one = std::make_shared<foreign_resource>(allocator, nullptr);
        auto other = std::make_shared<foreign_resource>(allocator, nullptr);
        allocator->take_over();
        allocator.reset();
        one.reset();
        EXPECT_EQ(s.destroyed, 0);
    }
    EXPECT_EQ(s.destroyed, 1);
}

TEST(ForeignResource, StateThatWasNotTakenOverStaysItsOwners) {
    state s;
    { const foreign_allocator allocator(over(s)); }
    EXPECT_EQ(s.destroyed, 0);
    foreign_functions without = over(s);
    without.destroy = nullptr;
    foreign_allocator allocator(without);
    allocator.take_over();
}

}  // namespace
}  // namespace ndarena::resources
