# Compiler flags that every target shares.
add_compile_definitions(_GNU_SOURCE KVS_VERSION="${PROJECT_VERSION}")
add_compile_options(-Wall -Wextra -Wconversion -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes
                    -Wpointer-arith -Wwrite-strings -fno-strict-aliasing -fno-omit-frame-pointer)
if(KVS_WERROR)
  add_compile_options(-Werror)
endif()

# Deliberate bugs that the tests must catch; src/base/canary.h lists them. Never for a program that holds data.
option(KVS_CANARIES "Build in the deliberate bugs that the environment variable KVS_CANARY wakes" OFF)
if(KVS_CANARIES)
  add_compile_definitions(KVS_CANARIES=1)
endif()

# The checksum and the index want what every x86-64 server has had since 2013; the CRC code picks its
# instruction at run time, so a build for another machine only loses speed.
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  add_compile_options(-march=x86-64-v2 -mtune=generic)
endif()

if(KVS_SANITIZE STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined)
elseif(KVS_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread)
  add_link_options(-fsanitize=thread)
endif()
