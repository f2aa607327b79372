# Installs the build into a prefix, moves that prefix, and builds outside programs against it: C++
# through find_package (shared and static), C through pkg-config. Each computes a known number.
cmake_minimum_required(VERSION 3.25)
set(source ${CMAKE_CURRENT_LIST_DIR})

function(step what)
  message(STATUS "${what}")
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed (${result}):\n${text}")
  endif()
  set(text "${text}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK_DIR})
file(MAKE_DIRECTORY ${WORK_DIR})
step("install" ${CMAKE_COMMAND} --install ${BUILD_DIR} --config ${CONFIG} --prefix ${WORK_DIR}/first)
file(RENAME ${WORK_DIR}/first ${WORK_DIR}/moved)
set(prefix ${WORK_DIR}/moved)

foreach(path IN ITEMS include/attune/attune.h include/attune/attention.hpp ${LIBDIR}/libattune.a
                      ${LIBDIR}/libattune.so ${LIBDIR}/pkgconfig/attune.pc bin/attune
                      ${LIBDIR}/cmake/attune/attuneConfig.cmake
                      ${LIBDIR}/cmake/attune/attuneTargets.cmake
                      ${LIBDIR}/cmake/attune/attuneConfigVersion.cmake)
  if(NOT EXISTS ${prefix}/${path})
    message(FATAL_ERROR "the package has no ${path}")
  endif()
endforeach()

# The package must carry neither the build's own flags nor paths of the machine that built it.
file(GLOB package_files ${prefix}/${LIBDIR}/cmake/attune/*.cmake ${prefix}/${LIBDIR}/pkgconfig/*.pc)
foreach(path IN LISTS package_files)
  file(READ ${path} content)
  foreach(word IN ITEMS attune_flags -Werror -Wall nlohmann fmt ${WORK_DIR} ${BUILD_DIR})
    string(FIND "${content}" "${word}" at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${path} mentions ${word}")
    endif()
  endforeach()
endforeach()

step("configure C++" ${CMAKE_COMMAND} -S ${source}/cpp -B ${WORK_DIR}/cpp -G ${GENERATOR}
     -D CMAKE_PREFIX_PATH=${prefix} -D CMAKE_CXX_COMPILER=${CXX_COMPILER} -D EXPECTED_VERSION=${VERSION})
step("build C++" ${CMAKE_COMMAND} --build ${WORK_DIR}/cpp)
step("run C++ against the shared library" ${WORK_DIR}/cpp/outside_shared)
step("run C++ against the static library" ${WORK_DIR}/cpp/outside_static)

find_program(PKG_CONFIG NAMES pkg-config pkgconf REQUIRED)
set(ENV{PKG_CONFIG_PATH} ${prefix}/${LIBDIR}/pkgconfig)
step("pkg-config" ${PKG_CONFIG} --cflags --libs attune)
separate_arguments(flags UNIX_COMMAND "${text}")
step("build C" ${C_COMPILER} -std=c99 -Wall -Wextra -Wpedantic -Werror ${source}/c/main.c -o ${WORK_DIR}/outside_c
     ${flags} -lm -Wl,-rpath,${prefix}/${LIBDIR})
step("run C against the shared library" ${WORK_DIR}/outside_c)

step("pkg-config, static" ${PKG_CONFIG} --static --cflags --libs attune)
string(REPLACE "-lattune" "-l:libattune.a" text "${text}")
separate_arguments(flags UNIX_COMMAND "${text}")
step("build C, static" ${C_COMPILER} -std=c99 ${source}/c/main.c -o ${WORK_DIR}/outside_c_static ${flags} -lm)
step("run C against the static library" ${WORK_DIR}/outside_c_static)

step("run the command" ${prefix}/bin/attune --version)
string(FIND "${text}" "${VERSION}" at)
if(at EQUAL -1)
  message(FATAL_ERROR "attune --version says ${text}, not ${VERSION}")
endif()
